//! Reads a Secret or a ConfigMap as the kubelet mounts it: a directory with one file per key.
//!
//! The kubelet swaps the content of such a directory atomically: the files are symlinks through
//! `..data`, which points to a directory of its own for each version. So `..data` is resolved once
//! and everything is read from there; if it moved meanwhile, all of it is read again. A directory
//! without `..data` (a subPath mount, a local run) is read as it is.
//!
//! What the files mean is left to others: `storage_config` for Secrets, `trust_store` for CAs.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
};

/// A ConfigMap or Secret holds at most 1 MiB; a file beyond this is not one of theirs.
const MAX_FILE_BYTES: u64 = 16 << 20;

/// How often a directory that moves while it is read is read again. Each swap is one update of
/// the Secret, minutes apart, so a second try all but always suffices.
const MAX_READS: u32 = 5;

/// The keys of a mounted Secret or ConfigMap with their content, from one version of it.
#[derive(Clone, Default)]
pub struct Mount {
    directory: PathBuf,
    files: BTreeMap<String, Vec<u8>>,
}

/// Why a mounted directory could not be read.
#[derive(Debug, thiserror::Error)]
pub enum MountError {
    /// There is no such directory.
    #[error("{} does not exist", .0.display())]
    Missing(PathBuf),
    /// The path names a file.
    #[error("{} is not a directory", .0.display())]
    NotADirectory(PathBuf),
    /// The process may not read it: in Kubernetes that is the volume's mode or group.
    #[error("{} may not be read by this user; set the volume's defaultMode (for example 0444) or the pod's fsGroup", .0.display())]
    Denied(PathBuf),
    /// It kept changing under the reader.
    #[error("{} changed {MAX_READS} times while it was read", .0.display())]
    Unstable(PathBuf),
    /// A file that no Secret or ConfigMap can hold.
    #[error("{} is larger than {} bytes: not a file of a Secret or a ConfigMap", .0.display(), MAX_FILE_BYTES)]
    TooLarge(PathBuf),
    /// Any other failure of the file system.
    #[error("{} cannot be read", .path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// The system's error.
        #[source]
        source: io::Error,
    },
}

impl MountError {
    fn new(path: &Path, source: io::Error) -> Self {
        let path = path.to_owned();
        match source.kind() {
            io::ErrorKind::NotFound => Self::Missing(path),
            io::ErrorKind::NotADirectory => Self::NotADirectory(path),
            io::ErrorKind::PermissionDenied => Self::Denied(path),
            _ => Self::Io { path, source },
        }
    }

    /// The file went away between being listed and being read, as it does when `..data` is swapped.
    fn is_vanished(&self) -> bool {
        match self {
            Self::Missing(_) => true,
            Self::Io { source, .. } => source.raw_os_error() == Some(rustix::io::Errno::STALE.raw_os_error()),
            Self::NotADirectory(_) | Self::Denied(_) | Self::Unstable(_) | Self::TooLarge(_) => false,
        }
    }
}

impl Mount {
    /// Reads every key of the mounted directory `directory`, all of one version.
    ///
    /// # Errors
    ///
    /// [`MountError::Missing`] where there is no such directory; the other variants where it, or a
    /// file in it, cannot be read.
    pub fn read(directory: &Path) -> Result<Self, MountError> {
        for _ in 0..MAX_READS {
            let version = current_version(directory)?;
            let read = read_files(version.as_deref().unwrap_or(directory));
            if current_version(directory)? != version {
                continue;
            }
            match read {
                Ok(files) => {
                    return Ok(Self { directory: directory.to_owned(), files });
                }
                Err(error) if error.is_vanished() => {}
                Err(error) => return Err(error),
            }
        }
        Err(MountError::Unstable(directory.to_owned()))
    }

    /// The content of one key.
    pub fn file(&self, key: &str) -> Option<&[u8]> {
        self.files.get(key).map(Vec::as_slice)
    }

    /// All keys with their content, in the order of their names.
    pub fn files(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.files.iter().map(|(key, content)| (key.as_str(), content.as_slice()))
    }

    /// The names of the keys, in order.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.files.keys().map(String::as_str)
    }

    /// Whether there is no key at all: an optional Secret or ConfigMap that does not exist.
    pub fn is_empty(&self) -> bool {
        self.files.is_empty()
    }

    /// The path at which a user finds `key`.
    pub fn path_of(&self, key: &str) -> PathBuf {
        self.directory.join(key)
    }

    /// The mounted directory.
    pub fn directory(&self) -> &Path {
        &self.directory
    }
}

/// The content may be secret, so only the names are shown.
impl std::fmt::Debug for Mount {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Mount").field("directory", &self.directory).field("keys", &self.files.keys()).finish()
    }
}

/// The directory that `..data` points to now, or `None` where there is no `..data`.
fn current_version(directory: &Path) -> Result<Option<PathBuf>, MountError> {
    let link = directory.join("..data");
    match std::fs::read_link(&link) {
        Ok(target) => Ok(Some(directory.join(target))),
        // InvalidInput: `..data` is a directory of its own, as some tools copy it.
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => Ok(None),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let metadata = std::fs::metadata(directory).map_err(|error| MountError::new(directory, error))?;
            if metadata.is_dir() { Ok(None) } else { Err(MountError::NotADirectory(directory.to_owned())) }
        }
        Err(error) => Err(MountError::new(directory, error)),
    }
}

fn read_files(directory: &Path) -> Result<BTreeMap<String, Vec<u8>>, MountError> {
    let fail = |error| MountError::new(directory, error);
    let mut files = BTreeMap::new();
    for entry in std::fs::read_dir(directory).map_err(fail)? {
        let entry = entry.map_err(fail)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        // Names that start with `..` are the kubelet's own.
        if name.starts_with("..") {
            continue;
        }
        let path = entry.path();
        // `metadata`, not `symlink_metadata`: the keys are symlinks.
        let metadata = std::fs::metadata(&path).map_err(|error| MountError::new(&path, error))?;
        if !metadata.is_file() {
            continue;
        }
        if metadata.len() > MAX_FILE_BYTES {
            return Err(MountError::TooLarge(path));
        }
        let content = std::fs::read(&path).map_err(|error| MountError::new(&path, error))?;
        files.insert(name, content);
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn kubelet_mount(root: &Path) {
        std::fs::create_dir(root.join("..2026_01_01")).unwrap();
        std::fs::write(root.join("..2026_01_01/ca.crt"), "one").unwrap();
        symlink("..2026_01_01", root.join("..data")).unwrap();
        symlink("..data/ca.crt", root.join("ca.crt")).unwrap();
    }

    #[test]
    fn a_kubelet_mount_is_read_through_its_data_link() {
        let root = tempfile::tempdir().unwrap();
        kubelet_mount(root.path());
        let mount = Mount::read(root.path()).unwrap();
        assert_eq!(mount.keys().collect::<Vec<_>>(), ["ca.crt"]);
        assert_eq!(mount.file("ca.crt"), Some(&b"one"[..]));
    }

    #[test]
    fn a_plain_directory_is_read_as_it_is_and_subdirectories_are_passed_over() {
        let root = tempfile::tempdir().unwrap();
        std::fs::write(root.path().join("a"), "1").unwrap();
        std::fs::create_dir(root.path().join("d")).unwrap();
        let mount = Mount::read(root.path()).unwrap();
        assert_eq!(mount.keys().collect::<Vec<_>>(), ["a"]);
    }

    #[test]
    fn a_data_link_to_nowhere_is_not_an_empty_mount() {
        let root = tempfile::tempdir().unwrap();
        symlink("..gone", root.path().join("..data")).unwrap();
        let error = Mount::read(root.path()).unwrap_err();
        assert!(matches!(error, MountError::Unstable(_)), "{error}");
    }

    #[test]
    fn a_missing_directory_and_a_file_in_its_place_are_told_apart() {
        let root = tempfile::tempdir().unwrap();
        let missing = Mount::read(&root.path().join("none")).unwrap_err();
        assert!(matches!(missing, MountError::Missing(_)), "{missing}");
        std::fs::write(root.path().join("file"), "").unwrap();
        let file = Mount::read(&root.path().join("file")).unwrap_err();
        assert!(matches!(file, MountError::NotADirectory(_)), "{file}");
    }
}
