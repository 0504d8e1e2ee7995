//! The one reader of the process environment.
//!
//! Everything else takes an [`Environment`], so that a test can hand in its own and so that no
//! setting hides from the table in `docs/CONFIGURATION.md`. Nothing here writes the environment.
//! (The AWS SDK's credential chain and reqwest's proxy rules read the variables that they document
//! by themselves.)

use std::collections::BTreeMap;

/// A snapshot of environment variables.
#[derive(Clone, Default)]
pub struct Environment {
    variables: BTreeMap<String, String>,
}

impl Environment {
    /// The variables of this process. Values that are not UTF-8 are read with replacement
    /// characters, so that whatever uses one can say that it is wrong.
    #[allow(clippy::disallowed_methods, reason = "this module is the one place that may read the environment")]
    pub fn of_process() -> Self {
        std::env::vars_os()
            .map(|(name, value)| (name.to_string_lossy().into_owned(), value.to_string_lossy().into_owned()))
            .collect()
    }

    /// The value of `name`. An empty value is unset: operators write `""` for "nothing here".
    pub fn value(&self, name: &str) -> Option<&str> {
        self.variables.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }
}

impl<N: Into<String>, V: Into<String>> FromIterator<(N, V)> for Environment {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(variables: I) -> Self {
        Self { variables: variables.into_iter().map(|(name, value)| (name.into(), value.into())).collect() }
    }
}

/// Values may be secrets, so only the names are shown.
impl std::fmt::Debug for Environment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.variables.keys()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_variable_is_unset_and_a_full_one_is_not() {
        let environment = Environment::from_iter([("A", ""), ("B", "b")]);
        assert_eq!(environment.value("A"), None);
        assert_eq!(environment.value("B"), Some("b"));
    }

    #[test]
    fn debug_shows_names_only() {
        let environment = Environment::from_iter([("AWS_SECRET_ACCESS_KEY", "hunter2")]);
        assert_eq!(format!("{environment:?}"), r#"{"AWS_SECRET_ACCESS_KEY"}"#);
    }
}
