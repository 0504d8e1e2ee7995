//! A value that must not be seen.
//!
//! Owns the promise that a credential reaches a log, an error or a snapshot only where somebody wrote `expose`: Debug
//! and Display print `***`, whatever the length, and there is no `Serialize` and no `Deref` to go round them. Wiping
//! memory is not promised: the SDK keeps copies of its own.

use std::fmt;

/// A secret string. Prints as `***`; [`Secret::expose`] is the only way to its content.
///
/// Equality serves tests and comparing two origins of one setting. It is not constant-time: nobody remote can ask it.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// The content. Each call is a place to look at in a review.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl From<String> for Secret {
    fn from(value: String) -> Secret {
        Secret(value)
    }
}

impl From<&str> for Secret {
    fn from(value: &str) -> Secret {
        Secret(value.to_owned())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_prints_as_three_stars_whatever_its_length() {
        for content in ["", "a", "a much longer secret"] {
            let secret = Secret::from(content);
            assert_eq!(format!("{secret} {secret:?} {secret:#?} {secret:>40}"), "*** *** *** ***");
            assert_eq!(format!("{:?}", Some(&secret)), "Some(***)");
        }
    }

    #[test]
    fn only_expose_shows_the_content() {
        assert_eq!(Secret::from("hush".to_owned()).expose(), "hush");
    }

    #[test]
    fn two_secrets_are_equal_only_where_their_contents_are() {
        assert_eq!(Secret::from("a"), Secret::from("a"));
        assert_ne!(Secret::from("a"), Secret::from("b"));
    }
}
