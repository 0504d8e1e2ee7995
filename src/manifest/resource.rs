//! A Kubernetes object among the documents of a file.

use std::fmt;

use base64::{
    Engine as _,
    alphabet::STANDARD,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};

use super::{File, Node};

/// As Go's `encoding/json` decodes Secrets, but without minding a missing `=`.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// One object.
#[derive(Clone, Copy)]
pub struct Resource<'a> {
    /// The file that it stands in.
    pub file: &'a File,
    /// The document, from one.
    pub document: usize,
    /// The item of a `List`, from one.
    pub item: Option<usize>,
    /// The object itself.
    pub node: &'a Node,
}

/// Where values stand in a Secret or a ConfigMap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Section {
    /// Base64 in a Secret, text in a ConfigMap.
    Data,
    /// Text in a Secret; the API server lets it win over `data`.
    StringData,
    /// Base64 in a ConfigMap.
    BinaryData,
}

impl Section {
    /// The key in the manifest.
    pub fn name(self) -> &'static str {
        match self {
            Self::Data => "data",
            Self::StringData => "stringData",
            Self::BinaryData => "binaryData",
        }
    }
}

/// One key of a Secret or a ConfigMap.
#[derive(Clone, Copy)]
pub struct Datum<'a> {
    /// Where it stands.
    pub section: Section,
    /// Its name.
    pub key: &'a str,
    /// The node of the key.
    pub key_node: &'a Node,
    /// The node of the value.
    pub node: &'a Node,
    is_base64: bool,
}

/// Why a value cannot be had.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum DatumError {
    /// A mapping where text belongs: JSON is YAML, too.
    #[error("{0} instead of text; in YAML put \"|\" behind the colon and the value on lines of its own")]
    NotText(&'static str),
    /// `*name`.
    #[error("a YAML alias; write the value out")]
    Alias,
    /// What SOPS leaves.
    #[error("encrypted by SOPS; decrypt the manifest first: `sops -d FILE`")]
    Encrypted,
    /// `data` that is not base64.
    #[error("not base64, as everything under \"data\" has to be; move plain text to \"stringData\"")]
    NotBase64,
}

impl Datum<'_> {
    /// What a pod would find in the mounted file.
    ///
    /// # Errors
    ///
    /// A `DatumError` where Kubernetes would not take the value either.
    pub fn content(&self) -> Result<Vec<u8>, DatumError> {
        let Some(text) = self.node.text() else {
            let kind = self.node.kind();
            return Err(match self.node.value {
                super::Value::Alias => DatumError::Alias,
                super::Value::Scalar(_) | super::Value::Mapping(_) | super::Value::Sequence(_) => {
                    DatumError::NotText(kind)
                }
            });
        };
        if text.starts_with("ENC[") {
            return Err(DatumError::Encrypted);
        }
        if self.node.is_null() || !self.is_base64 {
            return Ok(if self.node.is_null() { Vec::new() } else { text.as_bytes().to_vec() });
        }
        // Go's decoder passes over line breaks.
        let letters: String = text.chars().filter(|c| !c.is_ascii_whitespace()).collect();
        BASE64.decode(letters).map_err(|_| DatumError::NotBase64)
    }

    /// How `content` is written as the value's text.
    pub fn encode(&self, content: &str) -> String {
        if self.is_base64 { BASE64.encode(content) } else { content.to_owned() }
    }
}

impl<'a> Resource<'a> {
    /// `Secret`, `ConfigMap`, ...
    pub fn kind(&self) -> &'a str {
        self.node.text_of("kind").unwrap_or_default()
    }

    /// `metadata.name`
    pub fn name(&self) -> &'a str {
        self.metadata("name").unwrap_or_default()
    }

    /// `metadata.namespace`
    pub fn namespace(&self) -> Option<&'a str> {
        self.metadata("namespace").filter(|name| !name.is_empty())
    }

    /// Whether this is the object of that name that `namespace` would see. A manifest without a namespace is applied
    /// wherever it is wanted.
    pub fn is(&self, kind: &str, name: &str, namespace: Option<&str>) -> bool {
        let is_there = match (self.namespace(), namespace) {
            (Some(own), Some(wanted)) => own == wanted,
            (None, _) | (_, None) => true,
        };
        self.kind() == kind && self.name() == name && is_there
    }

    /// Whether Kubernetes would refuse any change of it.
    pub fn is_immutable(&self) -> bool {
        self.node.text_of("immutable") == Some("true")
    }

    /// What made it and may make it again, so that an edit does not last.
    pub fn owner(&self) -> Option<String> {
        let metadata = self.node.get("metadata")?;
        if let Some(owner) = metadata.get("ownerReferences").and_then(|owners| owners.items().first()) {
            let text = |key| owner.text_of(key).unwrap_or_default();
            return Some(format!("{} {:?}", text("kind"), text("name")));
        }
        // OpenShift AI writes its storage-config Secret anew from the data connections.
        let managed = metadata.get("labels")?.text_of("opendatahub.io/managed")?;
        (managed == "true").then(|| "OpenShift AI (label opendatahub.io/managed)".to_owned())
    }

    fn metadata(&self, key: &str) -> Option<&'a str> {
        self.node.get("metadata")?.text_of(key)
    }

    /// Every key with its value, in the order of the manifest, each name once: what stands under
    /// `stringData` hides the same name under `data`.
    pub fn values(&self) -> Vec<Datum<'a>> {
        let is_secret = self.kind() == "Secret";
        let sections =
            if is_secret { [Section::StringData, Section::Data] } else { [Section::Data, Section::BinaryData] };
        let mut values: Vec<Datum<'a>> = Vec::new();
        for section in sections {
            let pairs = self.node.get(section.name()).map_or(&[][..], Node::pairs);
            // Of two values under one key the last counts, as the API server has it.
            for (key_node, node) in pairs.iter().rev() {
                let Some(key) = key_node.text() else { continue };
                if values.iter().all(|datum| datum.key != key) {
                    let is_base64 = match section {
                        Section::Data => is_secret,
                        Section::StringData => false,
                        Section::BinaryData => true,
                    };
                    values.push(Datum { section, key, key_node, node, is_base64 });
                }
            }
        }
        values.sort_by_key(|datum| datum.key_node.span.start);
        values
    }

    /// The value of one key.
    pub fn value(&self, key: &str) -> Option<Datum<'a>> {
        self.values().into_iter().find(|datum| datum.key == key)
    }

    /// Whether `data` or `stringData` is there and no mapping, so that its keys cannot be seen.
    pub fn hidden_section(&self) -> Option<(Section, &'static str)> {
        [Section::Data, Section::StringData, Section::BinaryData].into_iter().find_map(|section| {
            let node = self.node.get(section.name())?;
            let is_hidden = !matches!(node.value, super::Value::Mapping(_)) && !node.is_null();
            is_hidden.then(|| (section, node.kind()))
        })
    }
}

/// As messages name it.
impl fmt::Display for Resource<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, document {}", self.file.name, self.document)?;
        if let Some(item) = self.item {
            write!(f, ", item {item}")?;
        }
        write!(f, ", {} {:?}", self.kind(), self.name())?;
        match self.namespace() {
            Some(namespace) => write!(f, " (namespace {namespace:?})"),
            None => Ok(()),
        }
    }
}

pub(super) fn resources(file: &File) -> Vec<Resource<'_>> {
    let mut resources = Vec::new();
    for (index, node) in file.documents().iter().enumerate() {
        let whole = Resource { file, document: index + 1, item: None, node };
        match node.get("items") {
            // `List`, `SecretList`, `ConfigMapList`.
            Some(items) if whole.kind().ends_with("List") => {
                let items = items.items().iter().enumerate();
                resources.extend(items.map(|(item, node)| Resource { item: Some(item + 1), node, ..whole }));
            }
            _ => resources.push(whole),
        }
    }
    resources
}
