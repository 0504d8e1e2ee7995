//! What was done: which files, how large, and what was verified of each.

use std::{collections::BTreeMap, fmt, path::PathBuf, time::Duration};

use crate::{
    checksum::{Algorithm, HashAlgorithm},
    destination::RelativePath,
    units::{ByteSize, Rate, TimeSpan},
};

/// What a file's content was compared with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verified {
    /// The store's checksum of the whole object.
    Checksum(Algorithm),
    /// A hash, for which the file was read once more.
    Hash(HashAlgorithm),
    /// Its stamp: it was verified when it came, and neither the file nor the object has changed since.
    Stamp,
    /// Length and ETag: the store keeps no checksum that can be compared.
    EtagOnly,
    /// There is nothing in it.
    Empty,
}

impl fmt::Display for Verified {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Checksum(algorithm) => algorithm.fmt(f),
            Self::Hash(algorithm) => algorithm.fmt(f),
            Self::Stamp => f.write_str("unchanged"),
            Self::EtagOnly => f.write_str("etag-only"),
            Self::Empty => f.write_str("empty"),
        }
    }
}

/// How a file came to be there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// All of it in this run.
    Fetched,
    /// The rest of it in this run.
    Resumed {
        /// What earlier runs had brought.
        kept_bytes: u64,
    },
    /// In an earlier run: not a byte was moved.
    Kept,
}

/// One file in its place.
#[derive(Clone, Debug)]
pub struct FileReport {
    /// The destination.
    pub destination: PathBuf,
    /// Its path below the destination.
    pub path: RelativePath,
    /// Its length.
    pub bytes: u64,
    /// What was verified.
    pub verified: Verified,
    /// How it came to be there.
    pub arrival: Arrival,
}

/// Everything that one run has done.
#[derive(Clone, Debug)]
pub struct Report {
    /// Every file, in the order of the paths.
    pub files: Vec<FileReport>,
    /// How long the whole run took.
    pub elapsed: Duration,
    /// How many requests had to be made again.
    pub retries: u64,
}

impl Report {
    /// The size of all files together.
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.bytes).sum()
    }

    /// How many files were verified in which way: `12 crc64nvme, 1 etag-only`.
    pub fn verified(&self) -> String {
        let mut ways: BTreeMap<String, usize> = BTreeMap::new();
        for file in &self.files {
            *ways.entry(file.verified.to_string()).or_default() += 1;
        }
        let ways: Vec<String> = ways.into_iter().map(|(way, files)| format!("{files} {way}")).collect();
        ways.join(", ")
    }
}

/// One line: the last of the log, and the termination message.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let files = self.files.len();
        let plural = if files == 1 { "" } else { "s" };
        write!(
            f,
            "{files} file{plural}, {} in {} ({}); verified: {}",
            ByteSize(self.bytes()),
            TimeSpan(self.elapsed),
            Rate::over(self.bytes(), self.elapsed),
            self.verified()
        )?;
        match self.retries {
            0 => Ok(()),
            1 => f.write_str("; 1 request repeated"),
            retries => write!(f, "; {retries} requests repeated"),
        }
    }
}
