//! One entry of the storage-config Secret: a flat JSON object, in KServe's dialect, in ModelMesh's,
//! or in both at once.
//!
//! This module knows the fields, their spelling and what people get wrong in writing JSON. What a
//! value means, and which entry is read at all, is decided in `settings`.

use std::{collections::BTreeMap, fmt};

use serde_json::Value;

/// A field of a storage-config entry.
///
/// KServe reads `cabundle_configmap`, `ca_bundle`, `verify_ssl` and `anonymous`
/// (`kserve/pkg/credentials`, `kserve-storage`); ModelMesh reads `certificate`, `bucket` and
/// `default_bucket` (`modelmesh-runtime-adapter/pullman`). `session_token` and `addressing_style`
/// are ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Field {
    /// The kind of storage; this program supports `s3`.
    Type,
    /// Access key id.
    AccessKeyId,
    /// Secret access key.
    SecretAccessKey,
    /// Session token of temporary credentials.
    SessionToken,
    /// URL of the S3 endpoint.
    EndpointUrl,
    /// Region that requests are signed for.
    Region,
    /// Bucket of the model.
    Bucket,
    /// ModelMesh: bucket where nothing names one.
    DefaultBucket,
    /// Whether requests go unsigned.
    Anonymous,
    /// Whether the server's certificate is verified.
    VerifySsl,
    /// KServe: path of a CA bundle.
    CaBundle,
    /// KServe: name of the ConfigMap that holds the CA bundle.
    CabundleConfigmap,
    /// ModelMesh: the CA bundle itself, as PEM text.
    Certificate,
    /// `auto`, `path` or `virtual`.
    AddressingStyle,
}

impl Field {
    /// Every field, in the order of the documentation.
    pub const ALL: [Self; 14] = [
        Self::Type,
        Self::AccessKeyId,
        Self::SecretAccessKey,
        Self::SessionToken,
        Self::EndpointUrl,
        Self::Region,
        Self::Bucket,
        Self::DefaultBucket,
        Self::Anonymous,
        Self::VerifySsl,
        Self::CaBundle,
        Self::CabundleConfigmap,
        Self::Certificate,
        Self::AddressingStyle,
    ];

    /// The name in the JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Type => "type",
            Self::AccessKeyId => "access_key_id",
            Self::SecretAccessKey => "secret_access_key",
            Self::SessionToken => "session_token",
            Self::EndpointUrl => "endpoint_url",
            Self::Region => "region",
            Self::Bucket => "bucket",
            Self::DefaultBucket => "default_bucket",
            Self::Anonymous => "anonymous",
            Self::VerifySsl => "verify_ssl",
            Self::CaBundle => "ca_bundle",
            Self::CabundleConfigmap => "cabundle_configmap",
            Self::Certificate => "certificate",
            Self::AddressingStyle => "addressing_style",
        }
    }

    fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|field| field.name() == name)
    }

    /// The field that `name` was probably meant to be.
    fn nearest(name: &str) -> Option<Self> {
        let folded: String = name.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_lowercase()).collect();
        Self::ALL
            .into_iter()
            .map(|field| {
                let distance = strsim::damerau_levenshtein(&folded, &field.name().replace('_', ""));
                (distance, field)
            })
            .min_by_key(|(distance, _)| *distance)
            .filter(|(distance, field)| *distance <= field.name().len() / 3)
            .map(|(_, field)| field)
    }
}

/// What one entry says. Values may be secrets; `Debug` shows only which fields there are.
#[derive(Clone, Default)]
pub struct Entry {
    fields: BTreeMap<Field, Option<String>>,
    remarks: Vec<Remark>,
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.fields.keys()).finish()
    }
}

/// Something in an entry that is accepted here and worth cleaning up.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Remark {
    /// A boolean or a number where KServe's webhook demands a string.
    #[error("field {field:?} is a JSON {kind}; KServe's webhook accepts only strings: write it in double quotes")]
    NotAString {
        /// The field.
        field: &'static str,
        /// `boolean` or `number`.
        kind: &'static str,
    },
    /// A field that neither system has.
    #[error("unknown field {name:?} is ignored{}", .nearest.map_or(String::new(), |nearest| format!("; did you mean {nearest:?}?")))]
    UnknownField {
        /// The field as written.
        name: String,
        /// The known field that it resembles.
        nearest: Option<&'static str>,
    },
}

/// Why an entry could not be read.
#[derive(Debug, thiserror::Error)]
pub enum EntryError {
    /// The text is not UTF-8.
    #[error("not UTF-8 text")]
    NotText,
    /// The text is not JSON. The parser's message never quotes the text.
    #[error("not valid JSON: {message}{}", .hint.map_or(String::new(), |hint| format!("; {hint}")))]
    Json {
        /// serde_json's message, with line and column.
        message: String,
        /// The usual cause, where the text gives it away.
        hint: Option<&'static str>,
    },
    /// JSON, but not an object.
    #[error("a JSON {0} instead of an object such as {{\"type\": \"s3\", ...}}")]
    NotAnObject(&'static str),
    /// A field whose value is an array or an object.
    #[error("field {field:?} is a JSON {kind} instead of a string")]
    Nested {
        /// The field.
        field: &'static str,
        /// `array` or `object`.
        kind: &'static str,
    },
}

impl Entry {
    /// Reads one entry. `""` and `null` are unset; booleans and numbers are taken as their text,
    /// with a remark.
    ///
    /// # Errors
    ///
    /// [`EntryError`] says what is wrong with the text, without quoting it.
    pub fn parse(content: &[u8]) -> Result<Self, EntryError> {
        let text = std::str::from_utf8(content).map_err(|_| EntryError::NotText)?;
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let value: Value = serde_json::from_str(text)
            .map_err(|error| EntryError::Json { message: error.to_string(), hint: hint(text, &error) })?;
        let Value::Object(object) = value else {
            return Err(EntryError::NotAnObject(kind(&value)));
        };
        let mut entry = Self::default();
        for (name, value) in object {
            let Some(field) = Field::named(&name) else {
                entry.remarks.push(Remark::UnknownField { nearest: Field::nearest(&name).map(Field::name), name });
                continue;
            };
            let text = match value {
                Value::Null => None,
                Value::String(text) => Some(text).filter(|text| !text.is_empty()),
                Value::Bool(_) | Value::Number(_) => {
                    entry.remarks.push(Remark::NotAString { field: field.name(), kind: kind(&value) });
                    Some(value.to_string())
                }
                Value::Array(_) | Value::Object(_) => {
                    return Err(EntryError::Nested { field: field.name(), kind: kind(&value) });
                }
            };
            entry.fields.insert(field, text);
        }
        Ok(entry)
    }

    /// The field's value; unset, `""` and `null` are all `None`.
    pub fn value(&self, field: Field) -> Option<&str> {
        self.fields.get(&field)?.as_deref()
    }

    /// Whether the entry mentions the field, be it as `""` or `null`: an override that does so
    /// removes what the entry below says.
    pub fn mentions(&self, field: Field) -> bool {
        self.fields.contains_key(&field)
    }

    /// What is worth cleaning up.
    pub fn remarks(&self) -> &[Remark] {
        &self.remarks
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// The usual causes of broken entries, told from serde_json's message and the place it names.
fn hint(text: &str, error: &serde_json::Error) -> Option<&'static str> {
    let text = text.trim_start();
    if text.is_empty() {
        return Some("the value is empty");
    }
    // The beginning of `{"` in base64.
    if text.starts_with("eyJ") || text.starts_with("ewo") {
        return Some("it is still base64: encode it once under \"data\", or not at all under \"stringData\"");
    }
    if !text.starts_with(['{', '[']) {
        return Some("an entry is a JSON object such as {\"type\": \"s3\", ...}");
    }
    let message = error.to_string();
    let line = text.lines().nth(error.line().saturating_sub(1)).unwrap_or("");
    let at = line.get(error.column().saturating_sub(1)..).unwrap_or("").trim_start();
    if message.starts_with("control character") {
        Some("a line break inside a value must be written as \\n, as in \"-----BEGIN CERTIFICATE-----\\nMII...\"")
    } else if message.starts_with("trailing comma") {
        Some("remove the comma before the closing brace")
    } else if at.starts_with("//") || at.starts_with("/*") || at.starts_with('#') {
        Some("JSON has no comments: remove them")
    } else if at.starts_with('\'') {
        Some("JSON strings stand in double quotes")
    } else if message.starts_with("key must be a string") {
        Some("field names stand in double quotes")
    } else if message.starts_with("expected `,` or `}`") {
        Some("a comma is missing between two fields, or a quote inside a value is not written as \\\"")
    } else if message.starts_with("EOF while parsing") {
        Some("the end is missing: was the value cut off?")
    } else if message.starts_with("trailing characters") {
        Some("there is more after the closing brace: one entry holds one object")
    } else if message.starts_with("invalid escape") {
        Some("a backslash inside a value must be written twice")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Entry, EntryError> {
        Entry::parse(text.as_bytes())
    }

    fn message(text: &str) -> String {
        parse(text).unwrap_err().to_string()
    }

    #[test]
    fn both_dialects_are_read_from_one_entry() {
        let entry = parse(r#"{"type":"s3","certificate":"PEM","cabundle_configmap":"cm"}"#).unwrap();
        assert_eq!(entry.value(Field::Certificate), Some("PEM"));
        assert_eq!(entry.value(Field::CabundleConfigmap), Some("cm"));
        assert!(entry.remarks().is_empty());
    }

    #[test]
    fn empty_and_null_are_unset_but_mentioned() {
        let entry = parse(r#"{"ca_bundle":"","region":null}"#).unwrap();
        for field in [Field::CaBundle, Field::Region] {
            assert_eq!(entry.value(field), None);
            assert!(entry.mentions(field));
        }
        assert!(!entry.mentions(Field::Bucket));
    }

    #[test]
    fn a_boolean_is_taken_as_its_text_with_a_remark() {
        let entry = parse(r#"{"verify_ssl":false}"#).unwrap();
        assert_eq!(entry.value(Field::VerifySsl), Some("false"));
        assert_eq!(
            entry.remarks()[0].to_string(),
            r#"field "verify_ssl" is a JSON boolean; KServe's webhook accepts only strings: write it in double quotes"#
        );
    }

    #[test]
    fn an_unknown_field_names_the_nearest_known_one_if_there_is_one() {
        let entry = parse(r#"{"endpointUrl":"x","colour":"red"}"#).unwrap();
        let remarks: Vec<_> = entry.remarks().iter().map(ToString::to_string).collect();
        assert!(
            remarks.contains(&r#"unknown field "endpointUrl" is ignored; did you mean "endpoint_url"?"#.to_owned())
        );
        assert!(remarks.contains(&r#"unknown field "colour" is ignored"#.to_owned()));
    }

    #[test]
    fn broken_json_names_line_column_and_the_usual_cause() {
        let cases = [
            ("{\"certificate\": \"-----BEGIN\nMII\"}", "must be written as \\n"),
            ("{\"a\": \"b\"\n \"c\": \"d\"}", "a comma is missing"),
            ("{\"a\": \"b\",}", "remove the comma"),
            ("{\n// the store\n\"a\": \"b\"}", "no comments"),
            ("{'a': 'b'}", "double quotes"),
            ("{\"a\": \"b\"", "cut off"),
            ("", "the value is empty"),
        ];
        for (text, expected) in cases {
            let message = message(text);
            assert!(message.contains(expected), "{text:?}: {message}");
            assert!(message.contains("line "), "{text:?}: {message}");
        }
    }

    #[test]
    fn a_message_never_quotes_the_text() {
        for text in [
            r#"{"secret_access_key": "hunter2" "region": 1}"#,
            r#"["hunter2"]"#,
            r#"{"secret_access_key": ["hunter2"]}"#,
            "hunter2",
        ] {
            assert!(!message(text).contains("hunter2"), "{}", message(text));
        }
    }
}
