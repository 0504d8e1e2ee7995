//! The model volume: hidden partial files, positioned writes, and the rename that makes a file real.
//!
//! # What it promises
//!
//! A file has its final name only when it is whole. Until then it is a partial in the directory
//! `.storage-initializer` below the destination: one hidden place, on the same file system, that no
//! model server takes for a model, whatever names the files have. A partial has its full length
//! reserved before the first byte, where the file system can do that, so that a full disk is found
//! out at the start.
//!
//! Nothing below the destination is followed out of it: a symbolic link in the way of a file is
//! refused. The destination itself may be one; the operator put it there.
//!
//! This module knows nothing of S3. When to write what is decided in `transfer`.

use std::{
    fs::{self, File, Permissions},
    io,
    os::unix::fs::{DirBuilderExt as _, FileExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

use rustix::fs::FallocateFlags;

use crate::{
    destination::{RESERVED, RelativePath},
    units::ByteSize,
};

/// Files are readable by everyone in the pod: the model server may run as another user.
const FILE_MODE: u32 = 0o644;

/// Directories likewise.
const DIRECTORY_MODE: u32 = 0o755;

/// A destination directory on the model volume.
#[derive(Debug)]
pub struct ModelVolume {
    root: PathBuf,
    next_partial: AtomicU64,
}

/// What the volume refused.
#[derive(Debug, thiserror::Error)]
pub enum VolumeError {
    /// The destination, or a directory in it, cannot be created.
    #[error("directory {} cannot be created", .path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// The system's error.
        #[source]
        source: Refused,
    },
    /// The destination cannot be written.
    #[error("{} cannot be written", .path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// The system's error.
        #[source]
        source: Refused,
    },
    /// The model does not fit.
    #[error("the model needs {needed}, but the volume at {} has {available} free; enlarge the volume or its sizeLimit", .path.display())]
    TooSmall {
        /// The destination.
        path: PathBuf,
        /// What is still to be written.
        needed: ByteSize,
        /// What there is.
        available: ByteSize,
    },
    /// Something other than a directory where a directory belongs.
    #[error("{} is {found}, where the model needs a directory; remove it", .path.display())]
    NotADirectory {
        /// What is in the way.
        path: PathBuf,
        /// What it is.
        found: &'static str,
    },
    /// A directory where a file belongs.
    #[error("{} is a directory, where the model needs a file; remove it", .0.display())]
    IsADirectory(PathBuf),
}

/// An error of the system with what can be done about it.
#[derive(Debug, thiserror::Error)]
#[error("{error}{}", self.advice())]
pub struct Refused {
    error: io::Error,
}

impl Refused {
    fn advice(&self) -> &'static str {
        match self.error.kind() {
            io::ErrorKind::PermissionDenied => {
                "; set fsGroup in the pod's security context, or let the container run as the volume's owner"
            }
            io::ErrorKind::ReadOnlyFilesystem => "; mount the volume without readOnly",
            io::ErrorKind::StorageFull => "; enlarge the volume or its sizeLimit",
            io::ErrorKind::QuotaExceeded => "; raise the volume's quota",
            _ => "",
        }
    }
}

impl From<io::Error> for Refused {
    fn from(error: io::Error) -> Self {
        Self { error }
    }
}

impl ModelVolume {
    /// Creates the destination if need be, and the hidden directory in it; removes the partials
    /// that an earlier run left there.
    ///
    /// # Errors
    ///
    /// [`VolumeError`] where the volume cannot be written.
    pub fn open(root: &Path) -> Result<Self, VolumeError> {
        if fs::metadata(root).is_ok_and(|metadata| !metadata.is_dir()) {
            return Err(VolumeError::NotADirectory { path: root.to_owned(), found: "a file" });
        }
        create_directories(root)
            .map_err(|source| VolumeError::Directory { path: root.to_owned(), source: source.into() })?;
        let volume = Self { root: root.to_owned(), next_partial: AtomicU64::new(0) };
        let hidden = volume.hidden_directory();
        volume.remove_hidden_directory()?;
        create_directory(&hidden)
            .map_err(|source| VolumeError::Write { path: hidden.clone(), source: source.into() })?;
        Ok(volume)
    }

    /// How much the volume has room for.
    ///
    /// # Errors
    ///
    /// [`VolumeError::Write`] where the destination has gone.
    pub fn free_space(&self) -> Result<FreeSpace, VolumeError> {
        FreeSpace::at(&self.root).map_err(|error| write_error(&self.root, error))
    }

    /// Creates a partial with `len_bytes` reserved.
    ///
    /// # Errors
    ///
    /// [`VolumeError::Write`], among others with "no space left".
    pub fn create_partial(&self, len_bytes: u64) -> Result<Partial, VolumeError> {
        let number = self.next_partial.fetch_add(1, Ordering::Relaxed);
        let path = self.hidden_directory().join(format!("{number}.partial"));
        let create = || {
            let file = File::options().write(true).create_new(true).mode(FILE_MODE).open(&path)?;
            reserve(&file, len_bytes)?;
            Ok(file)
        };
        match create() {
            Ok(file) => Ok(Partial { path, file }),
            Err(error) => Err(write_error(&path, error)),
        }
    }

    /// Gives a partial, which is whole now, its final name.
    ///
    /// # Errors
    ///
    /// [`VolumeError`] where something is in the way or the volume refuses.
    pub fn publish(&self, partial: &Partial, to: &RelativePath) -> Result<(), VolumeError> {
        let target = to.join_to(&self.root);
        self.prepare_parents(to)?;
        check_final_name(&target)?;
        // Whatever the umask took away: the model server may run as another user. A file system
        // without modes refuses this, and then there is nothing to set.
        let _ = rustix::fs::fchmod(&partial.file, FILE_MODE.into());
        fs::rename(&partial.path, &target).map_err(|error| write_error(&target, error))
    }

    /// Removes the hidden directory: after success nothing of ours stays beside the model.
    ///
    /// # Errors
    ///
    /// [`VolumeError::Write`] where the volume refuses.
    pub fn remove_hidden_directory(&self) -> Result<(), VolumeError> {
        let hidden = self.hidden_directory();
        match fs::remove_dir_all(&hidden) {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(write_error(&hidden, error)),
        }
    }

    /// The destination.
    pub fn root(&self) -> &Path {
        &self.root
    }

    fn hidden_directory(&self) -> PathBuf {
        self.root.join(RESERVED)
    }

    fn prepare_parents(&self, file: &RelativePath) -> Result<(), VolumeError> {
        for path in parents(&self.root, file) {
            if find_directory(&path)?.is_some() {
                continue;
            }
            match create_directory(&path) {
                Ok(()) => {}
                // Another file of the same directory was faster.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(source) => return Err(VolumeError::Directory { path, source: source.into() }),
            }
        }
        Ok(())
    }
}

/// Checks that nothing in the destination `root` is in the way of these files: before their bytes are fetched, and not
/// after. A destination that does not exist yet has nothing in it.
///
/// # Errors
///
/// [`VolumeError`] that names what is in the way.
pub fn check_ways<'a>(root: &Path, mut files: impl Iterator<Item = &'a RelativePath>) -> Result<(), VolumeError> {
    let mut entries = match fs::read_dir(root) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(write_error(root, error)),
    };
    let is_fresh = entries.all(|entry| entry.is_ok_and(|entry| entry.file_name() == RESERVED));
    if is_fresh { Ok(()) } else { files.try_for_each(|file| check_way(root, file)) }
}

fn check_way(root: &Path, file: &RelativePath) -> Result<(), VolumeError> {
    for parent in parents(root, file) {
        if find_directory(&parent)?.is_none() {
            return Ok(());
        }
    }
    check_final_name(&file.join_to(root))
}

/// The directories between the destination and the file, outermost first.
fn parents(root: &Path, file: &RelativePath) -> impl Iterator<Item = PathBuf> {
    let names: Vec<_> = file.segments().rev().skip(1).collect();
    names.into_iter().rev().scan(root.to_owned(), |path, name| {
        path.push(name);
        Some(path.clone())
    })
}

/// Whether there is a directory; anything else in its place is an error.
fn find_directory(path: &Path) -> Result<Option<()>, VolumeError> {
    match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_dir() => Ok(Some(())),
        Ok(metadata) => {
            let found = if metadata.is_symlink() { "a symbolic link" } else { "a file" };
            Err(VolumeError::NotADirectory { path: path.to_owned(), found })
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(write_error(path, error)),
    }
}

fn check_final_name(target: &Path) -> Result<(), VolumeError> {
    match fs::symlink_metadata(target) {
        Ok(metadata) if metadata.is_dir() => Err(VolumeError::IsADirectory(target.to_owned())),
        // A link under the final name is replaced by the file, not followed.
        Ok(_) | Err(_) => Ok(()),
    }
}

fn write_error(path: &Path, error: io::Error) -> VolumeError {
    VolumeError::Write { path: path.to_owned(), source: error.into() }
}

/// How much a file system has room for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FreeSpace {
    /// The destination that was asked for.
    pub path: PathBuf,
    /// What there is; `None` where the file system cannot tell.
    pub available_bytes: Option<u64>,
    /// The file system's identity: destinations that share one share its space.
    device: u64,
}

impl FreeSpace {
    fn at(path: &Path) -> io::Result<Self> {
        use std::os::unix::fs::MetadataExt as _;
        let statistics = rustix::fs::statvfs(path)?;
        let available = statistics.f_bavail.saturating_mul(statistics.f_frsize);
        Ok(Self {
            path: path.to_owned(),
            // A file system that cannot tell says zero blocks in all.
            available_bytes: (statistics.f_blocks > 0).then_some(available),
            device: fs::metadata(path)?.dev(),
        })
    }

    /// Checks that what each destination needs fits, all destinations of one file system together.
    ///
    /// # Errors
    ///
    /// [`VolumeError::TooSmall`] with both numbers where it does not.
    pub fn check(needs: &[(Self, u64)]) -> Result<(), VolumeError> {
        for (space, _) in needs {
            let needed: u64 =
                needs.iter().filter(|(other, _)| other.device == space.device).map(|(_, bytes)| bytes).sum();
            if let Some(available) = space.available_bytes
                && needed > available
            {
                return Err(VolumeError::TooSmall {
                    path: space.path.clone(),
                    needed: ByteSize(needed),
                    available: ByteSize(available),
                });
            }
        }
        Ok(())
    }
}

/// Finds out whether a destination could be written, and leaves nothing behind. One that does not exist yet is judged by
/// the directory that it would be created in.
///
/// # Errors
///
/// [`VolumeError`], as [`ModelVolume::open`] would have it.
pub fn probe(root: &Path) -> Result<FreeSpace, VolumeError> {
    let refused = |path: &Path, source: io::Error| VolumeError::Write { path: path.to_owned(), source: source.into() };
    let absolute = std::path::absolute(root).map_err(|error| refused(root, error))?;
    let existing = absolute.ancestors().find(|ancestor| ancestor.exists()).unwrap_or(Path::new("/")).to_owned();
    let existing = existing.as_path();
    if !existing.is_dir() {
        return Err(VolumeError::NotADirectory { path: existing.to_owned(), found: "a file" });
    }
    let file = existing.join(format!("{RESERVED}-check-{}", std::process::id()));
    File::options().write(true).create_new(true).open(&file).map_err(|error| refused(&absolute, error))?;
    fs::remove_file(&file).map_err(|error| refused(&file, error))?;
    let space = FreeSpace::at(existing).map_err(|error| refused(existing, error))?;
    Ok(FreeSpace { path: absolute, ..space })
}

/// A file that is not whole yet.
#[derive(Debug)]
pub struct Partial {
    path: PathBuf,
    file: File,
}

impl Partial {
    /// Writes all of `bytes` at `offset_bytes`.
    ///
    /// # Errors
    ///
    /// [`VolumeError::Write`] as the system has it.
    pub fn write_at(&self, bytes: &[u8], offset_bytes: u64) -> Result<(), VolumeError> {
        self.file
            .write_all_at(bytes, offset_bytes)
            .map_err(|error| VolumeError::Write { path: self.path.clone(), source: error.into() })
    }
}

/// Reserves the file's blocks, so that a full disk is found out before the first byte.
fn reserve(file: &File, len_bytes: u64) -> io::Result<()> {
    if len_bytes == 0 {
        return Ok(());
    }
    match rustix::fs::fallocate(file, FallocateFlags::empty(), 0, len_bytes) {
        Ok(()) => Ok(()),
        // Not every file system can; the C library's emulation would write every block, so the
        // file just gets its length.
        Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS | rustix::io::Errno::INVAL) => {
            file.set_len(len_bytes)
        }
        Err(error) => Err(error.into()),
    }
}

/// Whatever the umask takes away is given back: the model server may run as another user. The
/// set-group-id bit, which an `fsGroup` sets and a new directory inherits, stays.
fn create_directory(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new().mode(DIRECTORY_MODE).create(path)?;
    let mode = fs::metadata(path)?.permissions().mode();
    // A file system without modes refuses this, and then there is nothing to set.
    let _ = fs::set_permissions(path, Permissions::from_mode(mode | DIRECTORY_MODE));
    Ok(())
}

fn create_directories(path: &Path) -> io::Result<()> {
    match (create_directory(path), path.parent()) {
        (Err(error), _) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
        (Err(error), Some(parent)) if error.kind() == io::ErrorKind::NotFound && parent != Path::new("") => {
            create_directories(parent)?;
            create_directory(path)
        }
        (result, _) => result,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn path(text: &str) -> RelativePath {
        RelativePath::parse(text).unwrap()
    }

    #[test]
    fn a_file_appears_under_its_name_only_when_it_is_published() {
        let root = tempfile::tempdir().unwrap();
        let volume = ModelVolume::open(root.path()).unwrap();
        let partial = volume.create_partial(6).unwrap();
        partial.write_at(b"def", 3).unwrap();
        partial.write_at(b"abc", 0).unwrap();
        assert!(!root.path().join("x/y").exists());
        volume.publish(&partial, &path("x/y")).unwrap();
        volume.remove_hidden_directory().unwrap();
        assert_eq!(fs::read(root.path().join("x/y")).unwrap(), b"abcdef");
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 1);
    }

    #[test]
    fn files_are_readable_by_the_group_whatever_the_umask() {
        let root = tempfile::tempdir().unwrap();
        let volume = ModelVolume::open(root.path()).unwrap();
        let partial = volume.create_partial(0).unwrap();
        volume.publish(&partial, &path("f")).unwrap();
        let mode = fs::metadata(root.path().join("f")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o644);
    }

    #[test]
    fn what_an_earlier_run_left_is_removed() {
        let root = tempfile::tempdir().unwrap();
        let hidden = root.path().join(RESERVED);
        fs::create_dir(&hidden).unwrap();
        fs::write(hidden.join("0.partial"), "old").unwrap();
        ModelVolume::open(root.path()).unwrap();
        assert_eq!(fs::read_dir(&hidden).unwrap().count(), 0);
    }

    #[test]
    fn a_link_in_the_way_is_refused_and_one_under_the_final_name_is_replaced() {
        let outside = tempfile::tempdir().unwrap();
        let root = tempfile::tempdir().unwrap();
        let volume = ModelVolume::open(root.path()).unwrap();
        symlink(outside.path(), root.path().join("d")).unwrap();
        let partial = volume.create_partial(0).unwrap();
        let error = volume.publish(&partial, &path("d/f")).unwrap_err();
        assert!(error.to_string().contains("a symbolic link"), "{error}");

        fs::write(outside.path().join("target"), "theirs").unwrap();
        symlink(outside.path().join("target"), root.path().join("f")).unwrap();
        let partial = volume.create_partial(4).unwrap();
        partial.write_at(b"ours", 0).unwrap();
        volume.publish(&partial, &path("f")).unwrap();
        assert_eq!(fs::read(outside.path().join("target")).unwrap(), b"theirs");
        assert_eq!(fs::read(root.path().join("f")).unwrap(), b"ours");
    }

    #[test]
    fn a_file_where_a_directory_belongs_and_the_reverse_are_named() {
        let root = tempfile::tempdir().unwrap();
        let volume = ModelVolume::open(root.path()).unwrap();
        fs::write(root.path().join("a"), "").unwrap();
        let error = volume.publish(&volume.create_partial(0).unwrap(), &path("a/b")).unwrap_err();
        assert!(matches!(error, VolumeError::NotADirectory { .. }), "{error}");
        fs::create_dir(root.path().join("c")).unwrap();
        let error = volume.publish(&volume.create_partial(0).unwrap(), &path("c")).unwrap_err();
        assert!(matches!(error, VolumeError::IsADirectory(_)), "{error}");
    }

    #[test]
    fn more_than_the_volume_has_is_refused_with_both_numbers() {
        let root = tempfile::tempdir().unwrap();
        let space = ModelVolume::open(root.path()).unwrap().free_space().unwrap();
        FreeSpace::check(&[(space.clone(), 1)]).unwrap();
        let error = FreeSpace::check(&[(space, u64::MAX)]).unwrap_err().to_string();
        assert!(error.contains("needs") && error.contains("free"), "{error}");
    }

    #[test]
    fn destinations_of_one_file_system_share_its_space() {
        let space = |device| FreeSpace { path: "/models".into(), available_bytes: Some(10), device };
        FreeSpace::check(&[(space(1), 6), (space(2), 6)]).unwrap();
        assert!(FreeSpace::check(&[(space(1), 6), (space(1), 6)]).is_err());
    }

    #[test]
    fn a_probe_leaves_nothing_behind_and_creates_no_destination() {
        let root = tempfile::tempdir().unwrap();
        probe(&root.path().join("not/yet")).unwrap();
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 0);
        fs::write(root.path().join("file"), "").unwrap();
        let error = probe(&root.path().join("file/below")).unwrap_err();
        assert!(matches!(error, VolumeError::NotADirectory { .. }), "{error}");
    }
}
