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
    io::{self, Read as _},
    path::{Path, PathBuf},
    time::Duration,
};

/// A ConfigMap or Secret holds at most 1 MiB; a file beyond this is not one of theirs.
const MAX_FILE_BYTES: u64 = 16 << 20;

/// How often a directory that moves while it is read is read again. Each swap is one update of
/// the Secret, minutes apart, so a second try all but always suffices; the rest is for whoever
/// updates in a loop.
const MAX_READS: u32 = 8;

/// How long to wait before that: a swap is a rename, over in much less.
const REREAD_AFTER: Duration = Duration::from_millis(5);

/// The keys of a mounted Secret or ConfigMap with their content, from one version of it.
#[derive(Default)]
pub struct Mount {
    directory: PathBuf,
    keys: Vec<String>,
    files: BTreeMap<String, Vec<u8>>,
    unreadable: BTreeMap<String, MountError>,
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
        let mut mount = Self::read_keys(directory, |keys| keys.to_vec())?;
        match mount.unreadable.pop_first() {
            Some((_, error)) => Err(error),
            None => Ok(mount),
        }
    }

    /// Reads the names of all keys and the content of those that `choose` picks, all of one
    /// version. A CA beside a private key is so read without the key, and one key that may not be
    /// read does not cost the others: see [`Self::unreadable`].
    ///
    /// # Errors
    ///
    /// [`MountError::Missing`] where there is no such directory; the other variants where it cannot
    /// be read.
    pub fn read_keys(directory: &Path, choose: impl Fn(&[String]) -> Vec<String>) -> Result<Self, MountError> {
        for attempt in 0..MAX_READS {
            if attempt > 0 {
                std::thread::sleep(REREAD_AFTER);
            }
            let version = current_version(directory)?;
            let read = read_version(directory, version.as_deref().unwrap_or(directory), &choose);
            if current_version(directory)? != version {
                continue;
            }
            match read {
                Ok(mount) => return Ok(mount),
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

    /// All keys that were read with their content, in the order of their names.
    pub fn files(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.files.iter().map(|(key, content)| (key.as_str(), content.as_slice()))
    }

    /// The keys that were to be read and cannot be, each with the reason.
    pub fn unreadable(&self) -> impl Iterator<Item = (&str, &MountError)> {
        self.unreadable.iter().map(|(key, error)| (key.as_str(), error))
    }

    /// The names of all keys, in order, read or not.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.keys.iter().map(String::as_str)
    }

    /// Whether there is no key at all: an optional Secret or ConfigMap that does not exist.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// The path at which a user finds `key`.
    pub fn path_of(&self, key: &str) -> PathBuf {
        self.directory.join(key)
    }
}

/// The content may be secret, so only the names are shown.
impl std::fmt::Debug for Mount {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Mount").field("directory", &self.directory).field("keys", &self.keys).finish()
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

/// All that `directory` holds, read from `version` of it, which may be itself. Errors name a file as
/// a user finds it.
fn read_version(
    directory: &Path,
    version: &Path,
    choose: impl Fn(&[String]) -> Vec<String>,
) -> Result<Mount, MountError> {
    let keys = keys(version)?;
    let mut mount = Mount { directory: directory.to_owned(), keys, ..Mount::default() };
    for key in choose(&mount.keys) {
        match read_bounded(&version.join(&key), &directory.join(&key)) {
            Ok(content) => {
                mount.files.insert(key, content);
            }
            Err(error) if error.is_vanished() => return Err(error),
            Err(error) => {
                mount.unreadable.insert(key, error);
            }
        }
    }
    Ok(mount)
}

/// The names of the files of `directory`, in order.
fn keys(directory: &Path) -> Result<Vec<String>, MountError> {
    let fail = |error| MountError::new(directory, error);
    let mut keys = Vec::new();
    for entry in std::fs::read_dir(directory).map_err(fail)? {
        let entry = entry.map_err(fail)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        // Names that start with `..` are the kubelet's own. `metadata`, not `symlink_metadata`: the
        // keys are symlinks; one that leads nowhere, as old certificate directories have, is no key.
        let is_key = match std::fs::metadata(entry.path()) {
            Ok(metadata) => metadata.is_file(),
            // Reading it will say so.
            Err(error) => error.kind() == io::ErrorKind::PermissionDenied,
        };
        if is_key && !name.starts_with("..") {
            keys.push(name);
        }
    }
    keys.sort_unstable();
    Ok(keys)
}

/// Reads one file, which may be a key of a mounted directory: if it vanishes because the directory
/// is swapped at this moment, it is read again.
///
/// # Errors
///
/// [`MountError`] says why not.
pub fn read_file(path: &Path) -> Result<Vec<u8>, MountError> {
    for _ in 1..MAX_READS {
        match read_bounded(path, path) {
            Err(error) if error.is_vanished() && std::fs::symlink_metadata(path).is_ok() => {
                std::thread::sleep(REREAD_AFTER);
            }
            result => return result,
        }
    }
    read_bounded(path, path)
}

/// Reads `path`, which errors call `name`.
fn read_bounded(path: &Path, name: &Path) -> Result<Vec<u8>, MountError> {
    let fail = |error| MountError::new(name, error);
    let file = std::fs::File::open(path).map_err(fail)?;
    let mut content = Vec::new();
    file.take(MAX_FILE_BYTES + 1).read_to_end(&mut content).map_err(fail)?;
    if content.len() as u64 > MAX_FILE_BYTES {
        return Err(MountError::TooLarge(name.to_owned()));
    }
    Ok(content)
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
    fn a_link_that_leads_nowhere_is_no_key_of_a_plain_directory() {
        let root = tempfile::tempdir().unwrap();
        std::fs::write(root.path().join("a"), "1").unwrap();
        symlink("gone", root.path().join("b")).unwrap();
        assert_eq!(Mount::read(root.path()).unwrap().keys().collect::<Vec<_>>(), ["a"]);
    }

    #[test]
    fn only_the_chosen_keys_are_read_and_all_are_named() {
        let root = tempfile::tempdir().unwrap();
        kubelet_mount(root.path());
        std::fs::write(root.path().join("..2026_01_01/tls.key"), "secret").unwrap();
        let mount = Mount::read_keys(root.path(), |_| vec!["ca.crt".to_owned()]).unwrap();
        assert_eq!(mount.keys().collect::<Vec<_>>(), ["ca.crt", "tls.key"]);
        assert_eq!(mount.file("ca.crt"), Some(&b"one"[..]));
        assert_eq!(mount.file("tls.key"), None);
    }

    #[test]
    fn a_key_that_is_too_large_is_named_and_costs_no_other() {
        let root = tempfile::tempdir().unwrap();
        std::fs::write(root.path().join("a"), "1").unwrap();
        let large = std::fs::File::create(root.path().join("b")).unwrap();
        large.set_len(MAX_FILE_BYTES + 1).unwrap();
        let mount = Mount::read_keys(root.path(), |keys| keys.to_vec()).unwrap();
        assert_eq!(mount.file("a"), Some(&b"1"[..]));
        assert_eq!(mount.unreadable().map(|(key, _)| key).collect::<Vec<_>>(), ["b"]);
        let error = Mount::read(root.path()).unwrap_err();
        assert!(matches!(error, MountError::TooLarge(_)), "{error}");
    }

    /// Two keys that say which version they are of, swapped as fast as this machine can.
    #[test]
    fn no_read_mixes_two_versions() {
        let root = tempfile::tempdir().unwrap();
        let publish = |version: u32| {
            let name = format!("..{version}");
            std::fs::create_dir(root.path().join(&name)).unwrap();
            for key in ["a", "b"] {
                std::fs::write(root.path().join(&name).join(key), version.to_string()).unwrap();
            }
            symlink(&name, root.path().join("..data_tmp")).unwrap();
            std::fs::rename(root.path().join("..data_tmp"), root.path().join("..data")).unwrap();
            if let Some(old) = version.checked_sub(1) {
                std::fs::remove_dir_all(root.path().join(format!("..{old}"))).unwrap();
            }
        };
        publish(0);
        for key in ["a", "b"] {
            symlink(Path::new("..data").join(key), root.path().join(key)).unwrap();
        }
        let ended = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                (1..400).for_each(publish);
                ended.store(true, std::sync::atomic::Ordering::Relaxed);
            });
            while !ended.load(std::sync::atomic::Ordering::Relaxed) {
                match Mount::read(root.path()) {
                    Ok(mount) => assert_eq!((mount.keys.len(), mount.file("a")), (2, mount.file("b"))),
                    Err(error) => assert!(matches!(error, MountError::Unstable(_)), "{error}"),
                }
                let alone = read_file(&root.path().join("a")).unwrap();
                assert!(!alone.is_empty());
            }
        });
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
