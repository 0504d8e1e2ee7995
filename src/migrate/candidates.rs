//! Which values of which Secrets are storage-config entries.
//!
//! A directory of manifests holds Secrets of all kinds. What is JSON and has an entry's fields is an entry, wherever it
//! stands. What is broken is a problem only where an entry was meant: in a Secret called `storage-config` or named on the
//! command line, or where the text mentions an entry's fields.

use std::fmt;

use crate::{
    manifest::{Datum, Resource},
    storage_config::{Entry, Field},
};

/// The Secret's name in KServe and in ModelMesh.
const USUAL_NAME: &str = "storage-config";

/// An entry in a manifest.
pub struct Candidate<'a> {
    /// The Secret.
    pub resource: Resource<'a>,
    /// Its key.
    pub datum: Datum<'a>,
    /// The JSON.
    pub text: String,
    /// What it says.
    pub entry: Entry,
}

/// Something about one place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remark {
    /// File, document, object, entry, field.
    pub place: String,
    /// What there is to say.
    pub message: String,
}

/// Everything that was found.
#[derive(Default)]
pub struct Candidates<'a> {
    /// The entries, in the order of the manifests.
    pub entries: Vec<Candidate<'a>>,
    /// What was meant as an entry and is none.
    pub problems: Vec<Remark>,
    /// What cannot be looked into, and need not be.
    pub notes: Vec<Remark>,
}

impl fmt::Display for Candidate<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, entry {:?}", self.resource, self.datum.key)
    }
}

impl fmt::Display for Remark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.message)
    }
}

impl Remark {
    pub(super) fn new(place: impl fmt::Display, message: impl fmt::Display) -> Self {
        Self { place: place.to_string(), message: message.to_string() }
    }
}

impl<'a> Candidates<'a> {
    /// Looks through `resources`: through all Secrets, or through the one of this name.
    pub fn find(resources: &[Resource<'a>], secret: Option<&str>) -> Self {
        let mut candidates = Self::default();
        for resource in resources {
            let is_meant = secret.map_or(resource.name() == USUAL_NAME, |name| name == resource.name());
            if secret.is_some() && !is_meant {
                continue;
            }
            match resource.kind() {
                "Secret" => candidates.look_into(*resource, is_meant),
                "SealedSecret" | "ExternalSecret" => candidates.notes.push(Remark::new(
                    resource,
                    "what it will hold cannot be seen; use the manifest of the Secret that it is made from or makes",
                )),
                _ => {}
            }
        }
        candidates
    }

    fn look_into(&mut self, resource: Resource<'a>, is_meant: bool) {
        if let Some((section, kind)) = resource.hidden_section() {
            let message = format!("{:?} is {kind}, so its entries cannot be seen; write them out", section.name());
            self.say(is_meant, Remark::new(resource, message));
        }
        for datum in resource.values() {
            let place = format!("{resource}, entry {:?}", datum.key);
            let content = match datum.content() {
                Ok(content) => content,
                Err(error) => {
                    self.say(is_meant, Remark::new(place, error));
                    continue;
                }
            };
            let text = String::from_utf8_lossy(&content);
            let is_meant = is_meant && looks_like_an_entry(&text) || mentions_fields(&text);
            match Entry::parse(&content) {
                Ok(entry) if is_an_entry(&entry) => {
                    self.entries.push(Candidate { resource, datum, text: text.into_owned(), entry });
                }
                Ok(_) => {}
                Err(error) if is_meant => self.problems.push(Remark::new(place, error)),
                Err(_) => {}
            }
        }
    }

    fn say(&mut self, is_meant: bool, remark: Remark) {
        if is_meant { self.problems.push(remark) } else { self.notes.push(remark) }
    }
}

/// Whether somebody meant this to be an entry's JSON, be it broken or still encoded.
fn looks_like_an_entry(text: &str) -> bool {
    let text = text.trim_start_matches('\u{feff}').trim_start();
    // The beginning of `{"` and of `{` with a line break, in base64.
    text.starts_with('{') || text.starts_with("eyJ") || text.starts_with("ewo")
}

/// Whether it is JSON, broken or not, with an entry's own words in it.
fn mentions_fields(text: &str) -> bool {
    let is_json = text.trim_start_matches('\u{feff}').trim_start().starts_with('{');
    is_json
        && [Field::EndpointUrl, Field::AccessKeyId, Field::CabundleConfigmap]
            .into_iter()
            .any(|field| text.contains(field.name()))
}

/// Whether a JSON object is an entry and not something else of the cluster's.
fn is_an_entry(entry: &Entry) -> bool {
    let has = |field| entry.value(field).is_some();
    has(Field::EndpointUrl)
        || has(Field::AccessKeyId)
        || has(Field::CabundleConfigmap)
        || has(Field::Type) && (has(Field::Certificate) || has(Field::Bucket) || entry.value(Field::Type) == Some("s3"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::File;

    /// The entries and the problems of a Secret with this one value.
    fn found(secret: &str, value: &str) -> (usize, Vec<String>) {
        let value = serde_json::Value::from(value);
        let text = format!("kind: Secret\nmetadata: {{name: {secret}}}\nstringData:\n  a: {value}\n");
        let file = File::parse("f".to_owned(), "f".into(), text).unwrap();
        let candidates = Candidates::find(&file.resources(), None);
        (candidates.entries.len(), candidates.problems.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn an_entry_is_found_in_a_secret_of_any_name() {
        for value in [r#"{"type":"s3"}"#, "\u{feff}{\"endpoint_url\":\"x\"}", r#"{"type":"azure","bucket":"x"}"#] {
            for secret in ["storage-config", "another"] {
                assert_eq!(found(secret, value), (1, vec![]), "{value}");
            }
        }
    }

    #[test]
    fn other_things_of_a_cluster_are_neither_entries_nor_problems() {
        for value in [
            "hunter2",
            r#"{"auths":{"registry":{"auth":"aHVudGVyMg=="}}}"#,
            r#"{"type":"service_account","private_key":"x"}"#,
            "{{ .Values.x }}",
            "eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiJrdWJlcm5ldGVzIn0.x",
            r#"{"region":{"name":"x"}}"#,
        ] {
            assert_eq!(found("another", value), (0, vec![]), "{value}");
        }
    }

    #[test]
    fn what_was_meant_as_an_entry_and_is_broken_is_named_with_its_place() {
        let place = r#"f, document 1, Secret "storage-config", entry "a": "#;
        for (value, expected) in [
            ("{{ .Values.x }}", "key must be a string"),
            ("eyJ0eXBlIjoiczMifQ==", "it is still base64"),
            (r#"{"region":{"name":"x"}}"#, "field \"region\" is a JSON object"),
        ] {
            let (_, problems) = found("storage-config", value);
            assert!(
                matches!(&problems[..], [only] if only.starts_with(place) && only.contains(expected)),
                "{problems:?}"
            );
        }
        let (_, problems) = found("another", r#"{"endpoint_url": "x" "hunter2"}"#);
        assert!(problems[0].contains("a comma is missing") && !problems[0].contains("hunter2"), "{problems:?}");
    }
}
