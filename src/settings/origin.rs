//! Where a value comes from. Every setting carries its [`Origin`], because a wrong endpoint is
//! found in seconds by whoever is told which of five places it was read from.

use std::{fmt, path::PathBuf};

use crate::storage_config::Field;

/// The place that a value was read from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The built-in default.
    Default,
    /// A command line argument.
    Argument,
    /// An environment variable.
    Environment(&'static str),
    /// A file of a mounted Secret that holds one variable per file.
    SecretFile(PathBuf),
    /// A field of a storage-config entry.
    Entry {
        /// Which entry.
        entry: EntryName,
        /// Which field.
        field: Field,
    },
    /// The source URI.
    SourceUri,
    /// The host of the endpoint, which held a bucket or a region.
    EndpointHost,
}

/// Which storage-config entry, in words for messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EntryName {
    /// A file of the mounted Secret.
    Mounted(PathBuf),
    /// The variable `STORAGE_CONFIG`.
    StorageConfig,
    /// The variable `STORAGE_OVERRIDE_CONFIG`.
    StorageOverrideConfig,
}

impl fmt::Display for EntryName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mounted(path) => {
                let name = path.file_name().unwrap_or(path.as_os_str());
                write!(f, "storage-config entry {:?} ({})", name.to_string_lossy(), path.display())
            }
            Self::StorageConfig => f.write_str("env STORAGE_CONFIG"),
            Self::StorageOverrideConfig => f.write_str("env STORAGE_OVERRIDE_CONFIG"),
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::Argument => f.write_str("argument"),
            Self::Environment(name) => write!(f, "env {name}"),
            Self::SecretFile(path) => write!(f, "{}", path.display()),
            Self::Entry { entry, field } => write!(f, "{entry}, field {:?}", field.name()),
            Self::SourceUri => f.write_str("source URI"),
            Self::EndpointHost => f.write_str("the endpoint's host"),
        }
    }
}

/// A value and where it comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sourced<T> {
    /// The value.
    pub value: T,
    /// Where it was read.
    pub origin: Origin,
}

impl<T> Sourced<T> {
    /// A value of this origin.
    pub fn new(value: T, origin: Origin) -> Self {
        Self { value, origin }
    }

    /// The built-in default.
    pub fn default(value: T) -> Self {
        Self::new(value, Origin::Default)
    }

    /// The same origin with another value.
    pub fn map<U>(self, change: impl FnOnce(T) -> U) -> Sourced<U> {
        Sourced { value: change(self.value), origin: self.origin }
    }
}
