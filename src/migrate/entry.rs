//! The JSON of one entry, edited in its text: unknown fields, their order, numbers and blanks stay.
//!
//! Each function takes and returns the text of an entry that `Entry::parse` has accepted, and answers
//! `None` only where it has not.

use std::ops::Range;

use crate::{
    manifest::{Node, json},
    storage_config::Field,
};

/// Names a ConfigMap: right behind `certificate`, in its layout; or in place of a
/// `cabundle_configmap` that is `""` or null.
pub(super) fn name_configmap(text: &str, name: &str) -> Option<String> {
    let object = object(text)?;
    let value = serde_json::Value::from(name);
    let mut edited = text.to_owned();
    if let Some((_, unset)) = object.pair(Field::CabundleConfigmap.name()) {
        edited.replace_range(unset.span.clone(), &value.to_string());
        return Some(edited);
    }
    let (key, certificate) = object.pair(Field::Certificate.name())?;
    let before = text.get(..key.span.start)?;
    let blanks = before.get(before.trim_end().len()..)?;
    let colon = text.get(key.span.end..certificate.span.start)?;
    let field = Field::CabundleConfigmap.name();
    // `{ "certificate": ... }`: what stands behind a brace need not stand behind a comma.
    let blanks = if blanks.is_empty() && colon.ends_with(' ') { " " } else { blanks };
    edited.insert_str(certificate.span.end, &format!(",{blanks}\"{field}\"{colon}{value}"));
    Some(edited)
}

/// Takes `certificate` out, however often it is there.
pub(super) fn drop_certificate(text: &str) -> Option<String> {
    let mut edited = text.to_owned();
    while let Some(member) = member(&object(&edited)?, Field::Certificate.name()) {
        edited.replace_range(member, "");
    }
    Some(edited)
}

fn object(text: &str) -> Option<Node> {
    json::documents(text).ok()?.into_iter().next()
}

/// The bytes of a member with the comma that goes with it.
fn member(object: &Node, name: &str) -> Option<Range<usize>> {
    let pairs = object.pairs();
    let index = pairs.iter().position(|(key, _)| key.text() == Some(name))?;
    let (key, value) = pairs.get(index)?;
    Some(match (index.checked_sub(1).and_then(|before| pairs.get(before)), pairs.get(index + 1)) {
        (Some((_, before)), _) => before.span.end..value.span.end,
        (None, Some((behind, _))) => key.span.start..behind.span.start,
        (None, None) => key.span.start..value.span.end,
    })
}

#[cfg(test)]
mod tests {
    use proptest::{prop_assert, prop_assert_eq, proptest};
    use serde_json::{Map, Value};

    use super::*;

    proptest! {
        #[test]
        fn of_any_entry_only_the_two_fields_change(
            fields in proptest::collection::vec(("[a-z\"\\\\é ]{0,6}", "(.|\\n){0,12}"), 0..6),
            at in 0_usize..6,
            pretty: bool,
        ) {
            let mut object = Map::new();
            for (index, (name, text)) in fields.iter().enumerate() {
                if index == at {
                    object.insert("certificate".to_owned(), "x".into());
                }
                object.insert(name.clone(), Value::from(text.as_str()));
            }
            object.insert("certificate".to_owned(), "x".into());
            let value = Value::Object(object.clone());
            let text = if pretty { format!("{value:#}") } else { value.to_string() };
            let named = name_configmap(&text, "n").unwrap();
            object.insert("cabundle_configmap".to_owned(), "n".into());
            prop_assert_eq!(serde_json::from_str::<Value>(&named).unwrap(), Value::Object(object.clone()));
            let dropped = drop_certificate(&named).unwrap();
            object.remove("certificate");
            prop_assert_eq!(serde_json::from_str::<Value>(&dropped).unwrap(), Value::Object(object));
            prop_assert!(drop_certificate(&dropped) == Some(dropped.clone()));
        }
    }

    #[test]
    fn the_name_stands_behind_the_certificate_in_its_layout() {
        let cases = [
            (
                r#"{"a":1.50,"certificate":"x","z":[1e3]}"#,
                r#"{"a":1.50,"certificate":"x","cabundle_configmap":"n","z":[1e3]}"#,
            ),
            (
                "{\n\t\"certificate\" : \"x\"\n}\n",
                "{\n\t\"certificate\" : \"x\",\n\t\"cabundle_configmap\" : \"n\"\n}\n",
            ),
            (r#"{"certificate": "x"}"#, r#"{"certificate": "x", "cabundle_configmap": "n"}"#),
            (r#"{"cabundle_configmap":null,"certificate":"x"}"#, r#"{"cabundle_configmap":"n","certificate":"x"}"#),
        ];
        for (before, after) in cases {
            assert_eq!(name_configmap(before, "n").as_deref(), Some(after));
        }
    }

    #[test]
    fn the_certificate_goes_with_its_comma_and_nothing_else() {
        let cases = [
            (r#"{"a": 1, "certificate": "x", "b": 2}"#, r#"{"a": 1, "b": 2}"#),
            ("{\n  \"certificate\": \"x\",\n  \"b\": 2\n}", "{\n  \"b\": 2\n}"),
            ("{\n  \"b\": 2,\n  \"certificate\": \"x\"\n}", "{\n  \"b\": 2\n}"),
            (r#"{"certificate": "x"}"#, "{}"),
            (
                r#"{"certificate": "x", "b": {"certificate": "y"}, "certificate": "z"}"#,
                r#"{"b": {"certificate": "y"}}"#,
            ),
        ];
        for (before, after) in cases {
            assert_eq!(drop_certificate(before).as_deref(), Some(after));
        }
    }
}
