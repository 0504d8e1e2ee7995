//! The model volume: hidden partial files, positioned writes, and the rename that makes a file real.
//!
//! # What it promises
//!
//! A file has its final name only when it is whole. Until then it is a partial in the directory
//! `.storage-initializer` below the destination: one hidden place, on the same file system, that no
//! model server takes for a model, whatever names the files have. A partial has its full length
//! reserved before the first byte, where the file system can do that, so that a full disk is found
//! out at the start. It stays there when the process ends early, with a journal of what is whole of
//! it, and the next process goes on with it.
//!
//! One process at a time works on a destination; a lock in the hidden directory sees to that. On a
//! file system without locks each has a hidden directory of its own, and begins anew.
//!
//! A file that is whole has a [`Stamp`]: its modification time tells which object it is.
//!
//! Nothing below the destination is followed out of it: a symbolic link in the way of a file is
//! refused, whenever it comes there. The destination itself may be one; the operator put it there.
//!
//! This module knows nothing of S3. When to write what is decided in `transfer`.

mod direct;
mod directory;
mod lock;
mod partial;
mod space;
mod stamp;

use std::{
    collections::HashSet,
    fs::{self, File, Permissions},
    io::{self, Read as _},
    os::{
        fd::OwnedFd,
        unix::fs::{DirBuilderExt as _, FileExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _},
    },
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use rustix::fs::OFlags;

use self::{
    lock::{Lock, Taken},
    partial::{Cache, is_journal_or_partial},
};
use crate::{
    destination::{RESERVED, RelativePath},
    units::ByteSize,
};
pub use direct::Buffer;
pub use partial::{Journal, Partial, Whole, WriteBehind};
pub use space::FreeSpace;
pub use stamp::{Stamp, boot_id};

/// Files are readable by everyone in the pod: the model server may run as another user.
const FILE_MODE: u32 = 0o644;

/// Directories likewise.
const DIRECTORY_MODE: u32 = 0o755;

/// How much of a file is read at a time.
const READ_BYTES: usize = 256 << 10;

/// How old a directory of a process without a lock is when nobody needs it any more.
const OLD: Duration = Duration::from_secs(24 * 3600);

/// A destination directory on the model volume.
#[derive(Debug)]
pub struct ModelVolume {
    root: PathBuf,
    /// Where partials are: the hidden directory, or one of our own in it.
    work: PathBuf,
    /// Released when this is dropped.
    lock: Option<Lock>,
    /// Whether written bytes may stay in the page cache.
    cache: AtomicBool,
    /// The destination itself, whatever its name leads to later.
    directory: OwnedFd,
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
    /// The model does not fit into memory.
    #[error("the model needs {needed}, but the volume at {} is memory, and this container may use {limit} of it; raise the container's memory limit, or use a volume on a disk", .path.display())]
    TooLittleMemory {
        /// The destination.
        path: PathBuf,
        /// What is still to be written.
        needed: ByteSize,
        /// What the container may use.
        limit: ByteSize,
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
    /// A file that was in its place is not there any more.
    #[error("{} was in its place, and is not any more; nobody else may write there while the model is downloaded", .0.display())]
    Vanished(PathBuf),
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
            io::ErrorKind::NotFound => "; it has vanished: nobody else may write there while the model is downloaded",
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
    /// Creates the destination if need be, and the hidden directory in it. `None` where another process is at work in
    /// the same destination: two would write one partial.
    ///
    /// # Errors
    ///
    /// [`VolumeError`] where the volume cannot be written.
    pub fn open(root: &Path) -> Result<Option<Self>, VolumeError> {
        if fs::metadata(root).is_ok_and(|metadata| !metadata.is_dir()) {
            return Err(VolumeError::NotADirectory { path: root.to_owned(), found: "a file" });
        }
        create_directories(root)
            .map_err(|source| VolumeError::Directory { path: root.to_owned(), source: source.into() })?;
        let hidden = root.join(RESERVED);
        if fs::symlink_metadata(&hidden).is_ok_and(|metadata| !metadata.is_dir()) {
            // Whatever it is, a link to somewhere else among it: the name is ours.
            fs::remove_file(&hidden).map_err(|error| write_error(&hidden, error))?;
        }
        match make_directory(&hidden) {
            // Its last user has removed it this very moment.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            made => made.map_err(|error| write_error(&hidden, error))?,
        }
        let (work, lock) = match Lock::take(&hidden).map_err(|error| write_error(&hidden, error))? {
            Taken::Ours(lock) => (hidden, Some(lock)),
            Taken::Busy => return Ok(None),
            Taken::Unsupported => {
                // The file that could not be locked is of no use to anybody.
                remove_if_there(&hidden.join(lock::NAME))?;
                (private_directory(&hidden)?, None)
            }
        };
        Ok(Some(Self {
            root: root.to_owned(),
            work,
            lock,
            cache: AtomicBool::new(true),
            directory: directory::open_root(root).map_err(|error| write_error(root, error))?,
        }))
    }

    /// Whether an earlier run's partials can be continued. Not where the file system has no locks: nobody could tell
    /// whether their writer is still at work.
    pub fn is_locked(&self) -> bool {
        self.lock.is_some()
    }

    /// From here on written bytes leave the page cache soon: it is charged to the container, which has little.
    pub fn spare_the_page_cache(&self) {
        self.cache.store(false, Ordering::Relaxed);
    }

    /// Whether written bytes leave the page cache soon, or never get there.
    pub fn spares_the_page_cache(&self) -> bool {
        !self.cache.load(Ordering::Relaxed)
    }

    /// How much the volume has room for, what earlier runs have left in the hidden directory included: it is continued,
    /// or removed.
    ///
    /// # Errors
    ///
    /// [`VolumeError::Write`] where the destination has gone.
    pub fn free_space(&self) -> Result<FreeSpace, VolumeError> {
        let mut space = FreeSpace::at(&self.root).map_err(|error| write_error(&self.root, error))?;
        space.held_bytes = held_bytes(&self.work);
        space.available_bytes = space.available_bytes.map(|available| available.saturating_add(space.held_bytes));
        Ok(space)
    }

    /// What is under the final name of `path` now, compared with a file of `len_bytes` that carries `stamp`.
    pub fn presence(&self, path: &RelativePath, len_bytes: u64, stamp: Option<&Stamp>) -> Presence {
        Presence::of(&path.join_to(&self.root), len_bytes, stamp)
    }

    /// The same of a partial.
    pub fn presence_of_partial(&self, name: &str, len_bytes: u64, stamp: Option<&Stamp>) -> Presence {
        Presence::of(&self.partial_path(name), len_bytes, stamp)
    }

    /// Whether an earlier run has left a partial of this name.
    pub fn has_partial(&self, name: &str) -> bool {
        fs::symlink_metadata(self.partial_path(name)).is_ok()
    }

    /// Opens what has the final name of `path`, for reading; a link is not followed.
    ///
    /// # Errors
    ///
    /// [`VolumeError::Write`] as the system has it.
    pub fn open_file(&self, path: &RelativePath) -> Result<File, VolumeError> {
        let path = path.join_to(&self.root);
        let flags = OFlags::NOFOLLOW.bits() as i32;
        File::options().read(true).custom_flags(flags).open(&path).map_err(|error| write_error(&path, error))
    }

    /// Reads `buffer.len()` bytes of an opened file from `offset_bytes` on.
    ///
    /// # Errors
    ///
    /// [`VolumeError::Write`] as the system has it.
    pub fn read_file_at(
        &self,
        file: &File,
        path: &RelativePath,
        buffer: &mut [u8],
        offset_bytes: u64,
    ) -> Result<(), VolumeError> {
        file.read_exact_at(buffer, offset_bytes).map_err(|error| write_error(&path.join_to(&self.root), error))
    }

    /// Opens the partial of this name, or creates it, with `len_bytes` reserved. The name is the object's, in
    /// whatever state it is, so that an earlier run's partial is found again.
    ///
    /// # Errors
    ///
    /// [`VolumeError::Write`], among others with "no space left".
    pub fn partial(&self, name: &str, len_bytes: u64) -> Result<Partial, VolumeError> {
        let cache = if self.spares_the_page_cache() { Cache::Drop } else { Cache::Keep };
        Partial::open(self.partial_path(name), len_bytes, cache)
    }

    fn partial_path(&self, name: &str) -> PathBuf {
        self.work.join(format!("{name}.partial"))
    }

    /// A partial that an earlier run has completed, as [`ModelVolume::presence_of_partial`] has found out.
    pub fn whole(&self, name: &str) -> Whole {
        Whole::found(self.partial_path(name))
    }

    /// Gives a file that is whole its final name, and removes its journal.
    ///
    /// # Errors
    ///
    /// [`VolumeError`] where something is in the way or the volume refuses.
    pub fn publish(&self, whole: &Whole, to: &RelativePath) -> Result<(), VolumeError> {
        let target = to.join_to(&self.root);
        let parent = self.open_parent(to)?;
        directory::rename_into(&whole.path, &parent, to.file_name()).map_err(|error| match error.kind() {
            io::ErrorKind::IsADirectory => VolumeError::IsADirectory(target),
            _ => write_error(&target, error),
        })?;
        whole.remove_journal().map_err(|error| write_error(&whole.path, error))
    }

    /// Removes a file that is whole and has served its purpose without a name, and its journal.
    ///
    /// # Errors
    ///
    /// [`VolumeError::Write`] where the volume refuses.
    pub fn remove(&self, whole: &Whole) -> Result<(), VolumeError> {
        remove_if_there(&whole.path)?;
        whole.remove_journal().map_err(|error| write_error(&whole.path, error))
    }

    /// Removes the partials and journals of earlier runs but those with these names.
    ///
    /// # Errors
    ///
    /// [`VolumeError::Write`] where the volume refuses.
    pub fn remove_partials_except(&self, names: &HashSet<String>) -> Result<(), VolumeError> {
        for entry in fs::read_dir(&self.work).map_err(|error| write_error(&self.work, error))? {
            let path = entry.map_err(|error| write_error(&self.work, error))?.path();
            let is_wanted = path.file_stem().and_then(|stem| stem.to_str()).is_some_and(|stem| names.contains(stem));
            if is_journal_or_partial(&path) && !is_wanted {
                remove_if_there(&path)?;
            }
        }
        Ok(())
    }

    /// Removes the hidden directory: after success nothing of ours stays beside the model.
    ///
    /// # Errors
    ///
    /// [`VolumeError::Write`] where the volume refuses.
    pub fn remove_hidden_directory(&self) -> Result<(), VolumeError> {
        let hidden = self.root.join(RESERVED);
        let remove = if self.is_locked() { self.empty_hidden_directory() } else { fs::remove_dir_all(&self.work) };
        match remove {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(write_error(&self.work, error)),
            _ => {}
        }
        match fs::remove_dir(&hidden) {
            Ok(()) => Ok(()),
            // Another process has begun to work in there; what it leaves is its own.
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::DirectoryNotEmpty) => Ok(()),
            Err(error) => Err(write_error(&hidden, error)),
        }
    }

    /// The run ends early. What a later one can go on with stays; a hidden directory with nothing in it does not.
    pub fn leave(&self) {
        let is_of_use = |entry: io::Result<fs::DirEntry>| entry.is_ok_and(|entry| entry.file_name() != lock::NAME);
        if fs::read_dir(&self.work).is_ok_and(|mut entries| !entries.any(is_of_use)) {
            // The run's own error is the one to tell.
            let _ = self.remove_hidden_directory();
        }
    }

    /// The lock's file goes last: from then on whatever is in there may be another process'.
    fn empty_hidden_directory(&self) -> io::Result<()> {
        for entry in fs::read_dir(&self.work)? {
            let entry = entry?;
            let removed = match entry.file_type()? {
                _ if entry.file_name() == lock::NAME => Ok(()),
                kind if kind.is_dir() => fs::remove_dir_all(entry.path()),
                _ => fs::remove_file(entry.path()),
            };
            // A worker that is about to end may have renamed it.
            match removed {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        fs::remove_file(self.work.join(lock::NAME))
    }

    /// Whether this path leads to the same directory.
    pub fn is_at(&self, path: &Path) -> bool {
        match (fs::metadata(&self.root), fs::metadata(path)) {
            (Ok(ours), Ok(theirs)) => (ours.dev(), ours.ino()) == (theirs.dev(), theirs.ino()),
            _ => false,
        }
    }

    /// The destination.
    pub fn root(&self) -> &Path {
        &self.root
    }

    #[cfg(test)]
    fn work(&self) -> &Path {
        &self.work
    }

    /// Opens the directory above a file, and makes those that are missing. Each is looked for in the one before it, and
    /// no link is followed: whatever takes a directory's place meanwhile, no file gets outside.
    fn open_parent(&self, file: &RelativePath) -> Result<OwnedFd, VolumeError> {
        let refused =
            |path: &Path, error| VolumeError::Directory { path: path.to_owned(), source: io::Error::into(error) };
        let mut directory = self.directory.try_clone().map_err(|error| refused(&self.root, error))?;
        for path in parents(&self.root, file) {
            directory = match directory::enter(&directory, &path) {
                Ok(entered) => entered,
                Err(error) => {
                    find_directory(&path)?;
                    return Err(refused(&path, error));
                }
            };
        }
        Ok(directory)
    }

    /// A file that was given its final name, or had it, is still there.
    ///
    /// # Errors
    ///
    /// [`VolumeError::Vanished`] where it is not.
    pub fn confirm(&self, path: &RelativePath, len_bytes: u64) -> Result<(), VolumeError> {
        match self.presence(path, len_bytes, None) {
            Presence::Current | Presence::Unknown => Ok(()),
            Presence::Absent => Err(VolumeError::Vanished(path.join_to(&self.root))),
        }
    }
}

/// What is under a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    /// Nothing that could be the file.
    Absent,
    /// A file of the right length; whether it has the right bytes, nothing tells.
    Unknown,
    /// The very file, whole: it carries the stamp.
    Current,
}

impl Presence {
    fn of(path: &Path, len_bytes: u64, stamp: Option<&Stamp>) -> Self {
        match fs::symlink_metadata(path) {
            Ok(metadata) if metadata.is_file() && metadata.len() == len_bytes => match stamp {
                Some(stamp) if stamp.is_on(&metadata) => Self::Current,
                Some(_) | None => Self::Unknown,
            },
            Ok(_) | Err(_) => Self::Absent,
        }
    }
}

/// Reads a file from its beginning to its end.
///
/// # Errors
///
/// As the system has it.
pub fn read_all(mut file: &File, mut take: impl FnMut(&[u8])) -> io::Result<()> {
    let mut buffer = vec![0; READ_BYTES];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(length) => take(buffer.get(..length).unwrap_or_default()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// What the files of the hidden directory occupy.
fn held_bytes(work: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(work) else { return 0 };
    entries.flatten().filter_map(|entry| entry.metadata().ok()).map(|metadata| metadata.blocks() * 512).sum()
}

/// A directory of this process alone, where no lock can keep others out. Older ones, whose processes are not likely to
/// live, are removed.
fn private_directory(hidden: &Path) -> Result<PathBuf, VolumeError> {
    let is_old = |entry: &fs::DirEntry| {
        let age = entry.metadata().and_then(|metadata| metadata.modified()).map(|modified| modified.elapsed());
        age.is_ok_and(|age| age.is_ok_and(|age| age > OLD))
    };
    for entry in fs::read_dir(hidden).map_err(|error| write_error(hidden, error))?.flatten().filter(is_old) {
        // Best effort: another process may do the same.
        let _ = fs::remove_dir_all(entry.path());
    }
    let path = hidden.join(format!("run-{:016x}", fastrand::u64(..)));
    make_directory(&path).map_err(|error| write_error(&path, error))?;
    Ok(path)
}

fn remove_if_there(path: &Path) -> Result<(), VolumeError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(write_error(path, error)),
        _ => Ok(()),
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

/// One directory, unless it is there already: another file's thread may have been faster.
fn make_directory(path: &Path) -> io::Result<()> {
    match create_directory(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
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
        let volume = ModelVolume::open(root.path()).unwrap().unwrap();
        let partial = volume.partial("p", 6).unwrap();
        partial.write_at(b"def", 3).unwrap();
        partial.write_at(b"abc", 0).unwrap();
        assert!(!root.path().join("x/y").exists());
        volume.publish(&partial.complete(None).unwrap().0, &path("x/y")).unwrap();
        volume.remove_hidden_directory().unwrap();
        assert_eq!(fs::read(root.path().join("x/y")).unwrap(), b"abcdef");
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 1);
    }

    #[test]
    fn bytes_are_at_their_place_whichever_way_they_got_there() {
        let root = tempfile::tempdir().unwrap();
        let volume = ModelVolume::open(root.path()).unwrap().unwrap();
        volume.spare_the_page_cache();
        // Neither the end nor where a connection broke is where a block ends.
        let content: Vec<u8> = (0..3_000_005_u32).map(|at| (at % 251) as u8).collect();
        let partial = volume.partial("p", content.len() as u64).unwrap();
        let (mut at, mut behind, mut buffer) = (0, WriteBehind::new(0), Buffer::default());
        for broken_at in [700_001, 2_000_000, content.len()] {
            while at < broken_at {
                let length = partial.at_once(at as u64).min(broken_at - at);
                let bytes = buffer.of(length);
                bytes.copy_from_slice(&content[at..at + length]);
                partial.write_at(bytes, at as u64).unwrap();
                at += length;
                partial.written(&mut behind, at as u64).unwrap();
            }
        }
        partial.settle(&behind, at as u64).unwrap();
        volume.publish(&partial.complete(None).unwrap().0, &path("f")).unwrap();
        assert!(fs::read(root.path().join("f")).unwrap() == content);
    }

    #[test]
    fn files_are_readable_by_the_group_whatever_the_umask() {
        let root = tempfile::tempdir().unwrap();
        let volume = ModelVolume::open(root.path()).unwrap().unwrap();
        let partial = volume.partial("p", 0).unwrap();
        volume.publish(&partial.complete(None).unwrap().0, &path("f")).unwrap();
        let mode = fs::metadata(root.path().join("f")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o644);
    }

    #[test]
    fn what_an_earlier_run_left_is_kept_for_who_names_it_and_removed_otherwise() {
        let root = tempfile::tempdir().unwrap();
        let volume = ModelVolume::open(root.path()).unwrap().unwrap();
        for name in ["wanted", "other"] {
            let partial = volume.partial(name, 3).unwrap();
            partial.write_at(b"new", 0).unwrap();
            partial.begin_journal(b"begun\n").unwrap().append(b"more\n").unwrap();
        }
        drop(volume);
        let volume = ModelVolume::open(root.path()).unwrap().unwrap();
        volume.remove_partials_except(&HashSet::from(["wanted".to_owned()])).unwrap();
        let left = fs::read_dir(volume.work()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut left: Vec<_> = left.filter(|name| name != "lock").collect();
        left.sort();
        assert_eq!(left, ["wanted.journal", "wanted.partial"]);
        assert_eq!(volume.partial("wanted", 3).unwrap().read_journal(), b"begun\nmore\n");
    }

    #[test]
    fn a_journal_whose_partial_has_gone_says_nothing() {
        let root = tempfile::tempdir().unwrap();
        let volume = ModelVolume::open(root.path()).unwrap().unwrap();
        let partial = volume.partial("p", 2 << 20).unwrap();
        partial.begin_journal(b"begun\n").unwrap();
        assert_eq!(volume.partial("p", 2 << 20).unwrap().read_journal(), b"begun\n");
        fs::remove_file(volume.work().join("p.partial")).unwrap();
        assert_eq!(volume.partial("p", 2 << 20).unwrap().read_journal(), b"");
    }

    #[test]
    fn one_process_at_a_time_works_on_a_destination() {
        let root = tempfile::tempdir().unwrap();
        let first = ModelVolume::open(root.path()).unwrap().unwrap();
        assert!(ModelVolume::open(root.path()).unwrap().is_none());
        first.remove_hidden_directory().unwrap();
        // The first has removed the file that it holds the lock of, and is not gone yet.
        let second = ModelVolume::open(root.path()).unwrap().unwrap();
        drop(first);
        assert!(ModelVolume::open(root.path()).unwrap().is_none());
        drop(second);
        assert!(ModelVolume::open(root.path()).unwrap().is_some());
    }

    #[test]
    fn whoever_comes_while_the_hidden_directory_is_removed_is_not_disturbed_and_does_not_disturb() {
        let root = tempfile::tempdir().unwrap();
        std::thread::scope(|scope| {
            for worker in 0..3 {
                let root = root.path();
                scope.spawn(move || {
                    for _ in 0..100 {
                        let volume =
                            std::iter::repeat_with(|| ModelVolume::open(root).unwrap()).flatten().next().unwrap();
                        let partial = volume.partial("p", 3).unwrap();
                        partial.write_at(b"abc", 0).unwrap();
                        let (whole, _) = partial.complete(None).unwrap();
                        volume.publish(&whole, &path(&format!("file-{worker}"))).unwrap();
                        volume.remove_hidden_directory().unwrap();
                    }
                });
            }
        });
        ModelVolume::open(root.path()).unwrap().unwrap().remove_hidden_directory().unwrap();
        assert!(!root.path().join(RESERVED).exists());
    }

    #[test]
    fn a_link_in_place_of_the_hidden_directory_is_not_followed() {
        let outside = tempfile::tempdir().unwrap();
        let root = tempfile::tempdir().unwrap();
        symlink(outside.path(), root.path().join(RESERVED)).unwrap();
        let volume = ModelVolume::open(root.path()).unwrap().unwrap();
        volume.partial("p", 3).unwrap();
        assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_link_in_place_of_a_partial_is_not_followed() {
        let outside = tempfile::tempdir().unwrap();
        let root = tempfile::tempdir().unwrap();
        let volume = ModelVolume::open(root.path()).unwrap().unwrap();
        fs::write(outside.path().join("theirs"), "theirs").unwrap();
        symlink(outside.path().join("theirs"), volume.work().join("p.partial")).unwrap();
        assert!(volume.partial("p", 3).is_err());
        assert_eq!(fs::read(outside.path().join("theirs")).unwrap(), b"theirs");
    }

    #[test]
    fn a_stamped_file_is_current_and_one_of_another_state_or_length_is_not() {
        let root = tempfile::tempdir().unwrap();
        let volume = ModelVolume::open(root.path()).unwrap().unwrap();
        let partial = volume.partial("p", 4).unwrap();
        partial.write_at(b"ours", 0).unwrap();
        let stamp = Stamp::new("etag", 1_700_000_000);
        let (whole, is_stamped) = partial.complete(Some(&stamp)).unwrap();
        assert!(is_stamped);
        assert_eq!(volume.presence_of_partial("p", 4, Some(&stamp)), Presence::Current);
        volume.publish(&whole, &path("f")).unwrap();
        assert_eq!(volume.presence(&path("f"), 4, Some(&stamp)), Presence::Current);
        let other = Stamp::new("another etag", 1_700_000_000);
        assert_eq!(volume.presence(&path("f"), 4, Some(&other)), Presence::Unknown);
        assert_eq!(volume.presence(&path("f"), 4, None), Presence::Unknown);
        assert_eq!(volume.presence(&path("f"), 5, Some(&stamp)), Presence::Absent);
        assert_eq!(volume.presence(&path("g"), 4, Some(&stamp)), Presence::Absent);
    }

    #[test]
    fn a_link_in_the_way_is_refused_and_one_under_the_final_name_is_replaced() {
        let outside = tempfile::tempdir().unwrap();
        let root = tempfile::tempdir().unwrap();
        let volume = ModelVolume::open(root.path()).unwrap().unwrap();
        symlink(outside.path(), root.path().join("d")).unwrap();
        let partial = volume.partial("p", 0).unwrap();
        let error = volume.publish(&partial.complete(None).unwrap().0, &path("d/f")).unwrap_err();
        assert!(error.to_string().contains("a symbolic link"), "{error}");

        fs::write(outside.path().join("target"), "theirs").unwrap();
        symlink(outside.path().join("target"), root.path().join("f")).unwrap();
        let partial = volume.partial("p", 4).unwrap();
        partial.write_at(b"ours", 0).unwrap();
        volume.publish(&partial.complete(None).unwrap().0, &path("f")).unwrap();
        assert_eq!(fs::read(outside.path().join("target")).unwrap(), b"theirs");
        assert_eq!(fs::read(root.path().join("f")).unwrap(), b"ours");
    }

    #[test]
    fn a_file_where_a_directory_belongs_and_the_reverse_are_named() {
        let root = tempfile::tempdir().unwrap();
        let volume = ModelVolume::open(root.path()).unwrap().unwrap();
        fs::write(root.path().join("a"), "").unwrap();
        let error =
            volume.publish(&volume.partial("p", 0).unwrap().complete(None).unwrap().0, &path("a/b")).unwrap_err();
        assert!(matches!(error, VolumeError::NotADirectory { .. }), "{error}");
        fs::create_dir(root.path().join("c")).unwrap();
        let error = volume.publish(&volume.partial("p", 0).unwrap().complete(None).unwrap().0, &path("c")).unwrap_err();
        assert!(matches!(error, VolumeError::IsADirectory(_)), "{error}");
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
