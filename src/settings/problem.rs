//! What can be wrong with a configuration, each in a line that says where and what to change.

use std::{fmt, path::PathBuf};

use super::{EndpointError, EntryName, Origin};
use crate::{cause::one_line, filter::FilterError, mount::MountError, storage_config::EntryError, uri::UriError};

/// One thing that is wrong with the configuration.
#[derive(Debug, thiserror::Error)]
pub enum Problem {
    /// One digest and several downloads.
    #[error(
        "env VERIFICATION_DIGEST: a digest is of one source and one destination, and there are several; run one container for each"
    )]
    DigestOfMany,
    /// The mounted Secret cannot be read.
    #[error("storage-config Secret{}", .variable.map_or(String::new(), |name| format!(" (env {name})")))]
    StorageConfigDir {
        /// The variable that names it; `None` for the default directory.
        variable: Option<&'static str>,
        /// Why.
        source: MountError,
    },
    /// `STORAGE_KEY` names an entry that is not there.
    #[error("env STORAGE_KEY names entry {key:?}, which {} does not have; {}", .directory.display(), listed(.present))]
    NoSuchEntry {
        /// The key.
        key: String,
        /// The mounted Secret.
        directory: PathBuf,
        /// What it does have.
        present: Vec<String>,
    },
    /// Several entries, and nothing says which.
    #[error("{} has several entries and none is called default_s3 or default; set env STORAGE_KEY to one of: {}", .directory.display(), .present.join(", "))]
    AmbiguousEntry {
        /// The mounted Secret.
        directory: PathBuf,
        /// Its entries.
        present: Vec<String>,
    },
    /// An entry that cannot be read.
    #[error("{name}: {source}")]
    Entry {
        /// Which entry.
        name: EntryName,
        /// Why.
        source: EntryError,
    },
    /// A storage that this program does not download from.
    #[error("{origin}: {value:?} is not supported; this initializer downloads from \"s3\" only")]
    UnknownType {
        /// The type.
        value: String,
        /// Where it was read.
        origin: Origin,
    },
    /// A source URI that is not one.
    #[error("{origin}: {source}")]
    Uri {
        /// Where it was read.
        origin: Origin,
        /// Why.
        source: UriError,
    },
    /// An endpoint that is not one.
    #[error("{origin}: {source}")]
    Endpoint {
        /// Where it was read.
        origin: Origin,
        /// Why.
        source: EndpointError,
    },
    /// The bucket of the URI is not the bucket in the endpoint's host.
    #[error(
        "{origin}: the endpoint's host names bucket {in_host:?}, the source names {in_uri:?}; write the endpoint without the bucket"
    )]
    BucketInHost {
        /// The bucket in the host.
        in_host: String,
        /// The bucket of the source.
        in_uri: String,
        /// Where the endpoint was read.
        origin: Origin,
    },
    /// Amazon's transfer acceleration, and an endpoint that is not Amazon's.
    #[error(
        "{accelerate}: transfer acceleration is Amazon's alone, and {endpoint} names another endpoint; remove one of the two"
    )]
    Accelerate {
        /// Where the flag was read.
        accelerate: Origin,
        /// Where the endpoint was read.
        endpoint: Origin,
    },
    /// A storage path without a bucket.
    #[error(
        "env STORAGE_PATH names a path, but no bucket is set; add \"bucket\" or \"default_bucket\" to the storage-config entry, or set env AWS_S3_BUCKET or STORAGE_URI"
    )]
    NoBucket,
    /// One half of a key pair.
    #[error("{origin} is set, but {missing} is not; set both, or neither to use the default AWS credential chain")]
    HalfAKeyPair {
        /// Where the half that there is was read.
        origin: Origin,
        /// The half there is not.
        missing: &'static str,
    },
    /// A credential that no request can carry; the SDK would panic on it. Never shown.
    #[error(
        "{origin} holds a line break or another character that no credential has; was it encoded or pasted wrongly?"
    )]
    Unprintable {
        /// Where it was read.
        origin: Origin,
    },
    /// A value outside its bounds.
    #[error("{origin}: {value:?} is not {expected}")]
    Value {
        /// Where it was read.
        origin: Origin,
        /// The value.
        value: String,
        /// What it should be.
        expected: &'static str,
    },
    /// Allow or ignore patterns that cannot be read.
    #[error("env {variable}: {source}")]
    Filter {
        /// The variable.
        variable: &'static str,
        /// Why.
        source: FilterError,
    },
    /// Web identity without its other half.
    #[error("env {present} is set, but env {missing} is not; web identity needs both")]
    HalfAWebIdentity {
        /// The variable there is.
        present: &'static str,
        /// The variable there is not.
        missing: &'static str,
    },
}

impl Problem {
    /// Whether the command line is what has to change, and no setting.
    pub fn is_of_arguments(&self) -> bool {
        matches!(self, Self::Uri { origin: Origin::Argument, .. })
    }
}

fn listed(present: &[String]) -> String {
    if present.is_empty() {
        "it has no entries: is the Secret mounted there?".to_owned()
    } else {
        format!("it has: {}", present.join(", "))
    }
}

/// Why there are no settings.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// Neither the command line nor the environment names a source.
    #[error(
        "nothing to download: give SRC_URI DEST, or set env STORAGE_URI, or env STORAGE_PATH with a storage-config entry"
    )]
    NoSource,
    /// An odd number of arguments.
    #[error(
        "argument {0:?} has no destination: sources and destinations come in pairs, SRC_URI DEST [SRC_URI DEST ...]"
    )]
    Unpaired(String),
    /// Everything that is wrong, together.
    #[error("{}", Problems(.0))]
    Problems(Vec<Problem>),
}

struct Problems<'a>(&'a [Problem]);

impl fmt::Display for Problems<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            [only] => f.write_str(&one_line(only)),
            problems => {
                write!(f, "{} problems in the configuration:", problems.len())?;
                for (index, problem) in problems.iter().enumerate() {
                    let separator = if index == 0 { "" } else { ";" };
                    write!(f, "{separator} ({}) {}", index + 1, one_line(problem))?;
                }
                Ok(())
            }
        }
    }
}
