//! One case: what is in the buckets, what is asked for, and how it is configured.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

/// What an object holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// Nothing.
    Empty,
    /// A few bytes, which differ from case to case.
    Small(u64),
    /// What stands for nothing, for KServe.
    StandIn,
    /// So many that KServe fetches it in parts.
    Large(u64),
    /// An archive, which is unpacked where it is all there is.
    Archive(Archive),
}

/// An archive before it is packed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Archive {
    /// `tar`, `tar.gz`, `tar.bz2`, `tar.xz`, `tar.zst`, `zip`, `zip-bzip2`: how it is packed, whatever its name says.
    pub form: &'static str,
    /// What is in it.
    pub entries: Vec<ArchiveEntry>,
    /// How many bytes are missing at its end.
    pub cut_bytes: usize,
}

/// One entry of an archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArchiveEntry {
    /// Its name.
    pub name: &'static str,
    /// `file`, `directory`, `symlink`, `link` or `pipe`.
    pub kind: &'static str,
    /// What is in the file, or where the link points.
    pub content: &'static str,
}

/// A source and its destination. Each pair has a bucket of its own.
#[derive(Clone, Debug)]
pub struct Pair {
    /// The objects by their keys.
    pub objects: BTreeMap<String, Content>,
    /// What follows the bucket in the URI, with its slash.
    pub path: String,
    /// Which destination, by number: two pairs may share one.
    pub destination: usize,
}

/// What the server's certificate is trusted by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trust {
    /// `AWS_CA_BUNDLE`, the path of a file.
    Variable,
    /// The entry's `ca_bundle`, the path of a file.
    Entry,
    /// The ConfigMap that the webhook mounts.
    ConfigMap,
    /// The entry's `certificate`, the text.
    Certificate,
    /// Nothing: the public roots do not know the authority.
    Nothing,
    /// `AWS_CA_BUNDLE` names a file that is not there.
    MissingFile,
    /// The entry's `ca_bundle` is an empty string.
    EmptyEntry,
    /// A bundle whose second certificate is not one.
    Broken,
}

/// Whose keys sign.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keys {
    /// A pair that may do everything.
    Good,
    /// A pair that may get objects and not list them.
    WithoutList,
    /// A known id with another secret.
    WrongSecret,
    /// A pair that nobody knows.
    Unknown,
    /// A temporary pair with its token.
    Temporary,
}

/// One case.
#[derive(Clone, Debug)]
pub struct Case {
    /// Its number, which is in the buckets' names.
    pub number: usize,
    /// What is asked for.
    pub pairs: Vec<Pair>,
    /// Whether the settings come in `STORAGE_CONFIG` rather than one by one.
    pub in_entry: bool,
    /// What is trusted.
    pub trust: Trust,
    /// Who signs.
    pub keys: Keys,
    /// The store without TLS.
    pub plain: bool,
    /// Fields of the entry that are set last.
    pub fields: Map<String, Value>,
    /// `STORAGE_OVERRIDE_CONFIG`, where there is one.
    pub overrides: Map<String, Value>,
    /// Variables that are set last.
    pub variables: BTreeMap<String, String>,
    /// What is written around the endpoint, `%` being its place; a scheme goes with it.
    pub endpoint: Endpoint,
}

/// How the endpoint is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// `https://localhost:PORT`
    Full,
    /// With a slash at its end.
    Slash,
    /// Without a scheme.
    Bare,
}

impl Pair {
    /// The key or prefix that KServe and this program look for: without slashes in front.
    pub fn target(&self) -> &str {
        self.path.trim_start_matches('/')
    }

    /// Whether the target is an object that both take for the model.
    pub fn is_exact(&self) -> bool {
        !self.target().ends_with('/') && self.objects.contains_key(self.target())
    }

    /// The archive, if it is all there is and so unpacked.
    pub fn archive(&self) -> Option<&Archive> {
        let taken = self.taken();
        let [(key, _)] = taken.as_slice() else { return None };
        match &self.objects[*key] {
            Content::Archive(archive) => Some(archive),
            Content::Empty | Content::StandIn | Content::Small(_) | Content::Large(_) => None,
        }
    }

    /// The objects that this program takes by their keys and their paths in the destination, markers aside.
    pub fn taken(&self) -> Vec<(&str, String)> {
        let target = self.target();
        if self.is_exact() {
            return vec![(target, target.rsplit('/').next().unwrap_or_default().to_owned())];
        }
        let prefix = if target.is_empty() || target.ends_with('/') { target.to_owned() } else { format!("{target}/") };
        let keys = self.objects.keys().filter(|key| !key.ends_with('/'));
        keys.filter_map(|key| Some((key.as_str(), key.strip_prefix(&prefix)?.trim_start_matches('/').to_owned())))
            .collect()
    }
}
