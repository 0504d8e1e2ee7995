//! What was done: which files, how large, and what was verified of each.

use std::{
    collections::BTreeMap,
    fmt, fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use serde_json::{Value, json};

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
    /// The bucket.
    pub bucket: Arc<str>,
    /// The key.
    pub key: String,
    /// The object's ETag.
    pub etag: Option<String>,
    /// The object's version, where there is one and it was needed.
    pub version: Option<String>,
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
    /// How many files it was unpacked to, where it was an archive.
    pub unpacked_files: Option<u64>,
    /// Its SHA-256, where that was computed.
    pub sha256: Option<String>,
}

/// The report has no place.
#[derive(Debug, thiserror::Error)]
#[error("the report {} cannot be written", .path.display())]
pub struct ReportError {
    path: PathBuf,
    #[source]
    source: io::Error,
}

/// Everything that one run has done.
#[derive(Clone, Debug)]
pub struct Report {
    /// Every file, in the order of the paths.
    pub files: Vec<FileReport>,
    /// What looks wrong with the model.
    pub findings: Vec<String>,
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

    /// Everything, for programs: `--report`.
    pub fn to_json(&self) -> Value {
        let files = self.files.iter().map(|file| {
            let (arrival, kept_bytes) = match file.arrival {
                Arrival::Fetched => ("fetched", 0),
                Arrival::Resumed { kept_bytes } => ("resumed", kept_bytes),
                Arrival::Kept => ("kept", file.bytes),
            };
            json!({
                "bucket": &*file.bucket,
                "key": file.key,
                "etag": file.etag,
                "version": file.version,
                "destination": file.destination,
                "path": file.path.as_str(),
                "bytes": file.bytes,
                "verified": file.verified.to_string(),
                "sha256": file.sha256,
                "arrival": arrival,
                "kept_bytes": kept_bytes,
                "unpacked_files": file.unpacked_files,
            })
        });
        json!({
            "format": 1,
            "program": concat!(env!("CARGO_PKG_NAME"), " ", env!("CARGO_PKG_VERSION")),
            "files": files.collect::<Vec<_>>(),
            "bytes": self.bytes(),
            "seconds": self.elapsed.as_secs_f64(),
            "requests_repeated": self.retries,
            "findings": self.findings,
        })
    }

    /// Writes [`Report::to_json`] to a file, which gets its name when it is whole.
    ///
    /// # Errors
    ///
    /// [`ReportError`] where it cannot be written.
    pub fn write(&self, path: &Path) -> Result<(), ReportError> {
        let mut new = path.as_os_str().to_owned();
        new.push(".new");
        let write = || {
            fs::write(&new, format!("{:#}\n", self.to_json()))?;
            fs::rename(&new, path)
        };
        write().map_err(|source| ReportError { path: path.to_owned(), source })
    }

    /// The summary, and a line for each file, as many as fit into so many bytes: the termination message.
    pub fn within(&self, most_bytes: usize) -> String {
        let mut text = self.to_string();
        for (index, file) in self.files.iter().enumerate() {
            let line = format!("\n{}: {}, {}{}", file.path, ByteSize(file.bytes), file.verified, arrival(file.arrival));
            let rest = format!("\nand {} more", self.files.len() - index);
            let is_last = index + 1 == self.files.len();
            if text.len() + line.len() + if is_last { 0 } else { rest.len() } > most_bytes {
                return text + &rest;
            }
            text += &line;
        }
        text
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

fn arrival(arrival: Arrival) -> String {
    match arrival {
        Arrival::Fetched => String::new(),
        Arrival::Resumed { kept_bytes } => format!(", {} from an earlier run", ByteSize(kept_bytes)),
        Arrival::Kept => ", from an earlier run".to_owned(),
    }
}

/// One line: the last of the log, and the beginning of the termination message.
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
