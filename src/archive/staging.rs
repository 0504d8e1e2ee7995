//! The tree while it is extracted: a hidden directory that holds nothing else.
//!
//! The file system itself is the record of what there is already: a duplicate is a name that exists, a file in the place
//! of a directory is found where it stands. So memory does not depend on how many entries an archive has.

use std::{
    fs::{self, File},
    io::{self, Read, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use super::{ArchiveError, EntryRefusal, Unpacked, compression::damaged};
use crate::{destination::RelativePath, units::ByteSize, volume::VolumeError};

/// Files are readable by everyone in the pod: the model server may run as another user.
const FILE_MODE: u32 = 0o644;

/// What the owner may execute, everyone may.
const PROGRAM_MODE: u32 = 0o755;

/// Directories can be entered by everyone.
const DIRECTORY_MODE: u32 = 0o755;

/// How much is written at once.
const WRITE_BYTES: usize = 128 << 10;

/// The directory that an archive is extracted to.
#[derive(Debug)]
pub(super) struct Staging<'a> {
    root: &'a Path,
    unpacked: Unpacked,
    buffer: Vec<u8>,
    /// The directory of the last entry, which need not be looked at again for the next one.
    last_parent: Option<PathBuf>,
}

impl<'a> Staging<'a> {
    pub(super) fn new(root: &'a Path) -> Self {
        Self { root, unpacked: Unpacked::default(), buffer: vec![0; WRITE_BYTES], last_parent: None }
    }

    pub(super) fn unpacked(&self) -> Unpacked {
        self.unpacked
    }

    /// Whether so many bytes more fit; asked before they are unpacked.
    pub(super) fn check_room(&self, needed_bytes: u64) -> Result<(), ArchiveError> {
        let statistics = rustix::fs::statvfs(self.root).map_err(|error| write_error(self.root, error.into()))?;
        let available = statistics.f_bavail.saturating_mul(statistics.f_frsize);
        // A file system that cannot tell says zero blocks in all.
        if statistics.f_blocks > 0 && needed_bytes > available {
            return Err(ArchiveError::Volume(VolumeError::TooSmall {
                path: self.root.to_owned(),
                needed: ByteSize(needed_bytes),
                available: ByteSize(available),
            }));
        }
        Ok(())
    }

    /// A directory, which may be there already.
    pub(super) fn directory(&mut self, path: &RelativePath) -> Result<(), ArchiveError> {
        self.parents(path)?;
        self.one_directory(path, &path.join_to(self.root))
    }

    /// A regular file of exactly `size_bytes`.
    pub(super) fn file(
        &mut self,
        path: &RelativePath,
        size_bytes: u64,
        executable: bool,
        content: &mut dyn Read,
    ) -> Result<(), ArchiveError> {
        self.parents(path)?;
        let target = path.join_to(self.root);
        let created = File::options().write(true).create_new(true).mode(FILE_MODE).open(&target);
        let mut file = created.map_err(|error| new_entry_error(path, &target, error))?;
        let mut left = size_bytes;
        while left > 0 {
            let wanted = usize::try_from(left).unwrap_or(usize::MAX).min(self.buffer.len());
            let Some(buffer) = self.buffer.get_mut(..wanted) else { break };
            let read = match content.read(buffer) {
                Ok(0) => return Err(damaged(io::ErrorKind::UnexpectedEof.into())),
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(damaged(error)),
            };
            file.write_all(&buffer[..read]).map_err(|error| write_error(&target, error))?;
            left -= read as u64;
        }
        // Whatever the umask took away. A file system without modes refuses this, and then there is nothing to set.
        let mode = if executable { PROGRAM_MODE } else { FILE_MODE };
        let _ = rustix::fs::fchmod(&file, mode.into());
        self.unpacked.files += 1;
        self.unpacked.bytes += size_bytes;
        Ok(())
    }

    /// A symbolic link that stays in the tree.
    pub(super) fn symlink(&mut self, path: &RelativePath, target: &str) -> Result<(), ArchiveError> {
        if !stays_inside(path, target) {
            return Err(refused(path.as_str(), EntryRefusal::LinkOut(target.to_owned())));
        }
        self.parents(path)?;
        let link = path.join_to(self.root);
        std::os::unix::fs::symlink(target, &link).map_err(|error| new_entry_error(path, &link, error))?;
        self.unpacked.links += 1;
        Ok(())
    }

    /// Another name of a file that is there already.
    pub(super) fn hard_link(&mut self, path: &RelativePath, target: &RelativePath) -> Result<(), ArchiveError> {
        let nothing = || refused(path.as_str(), EntryRefusal::LinkToNothing(target.as_str().to_owned()));
        for above in above(target) {
            match fs::symlink_metadata(self.root.join(above)) {
                Ok(metadata) if metadata.is_dir() => {}
                Ok(_) | Err(_) => return Err(nothing()),
            }
        }
        let original = target.join_to(self.root);
        match fs::symlink_metadata(&original) {
            Ok(metadata) if metadata.is_file() => {}
            Ok(_) | Err(_) => return Err(nothing()),
        }
        self.parents(path)?;
        let link = path.join_to(self.root);
        match fs::hard_link(&original, &link) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                return Err(refused(path.as_str(), EntryRefusal::Duplicate));
            }
            // Not every file system has them.
            Err(_) => {
                let length = fs::metadata(&original).map_err(|error| write_error(&original, error))?.len();
                self.check_room(length)?;
                fs::copy(&original, &link).map_err(|error| write_error(&link, error))?;
            }
        }
        self.unpacked.files += 1;
        Ok(())
    }

    /// Creates the directories above `path`, and refuses to pass through anything else.
    fn parents(&mut self, path: &RelativePath) -> Result<(), ArchiveError> {
        let target = path.join_to(self.root);
        let parent = target.parent().map(Path::to_owned);
        if parent.is_some() && parent == self.last_parent {
            return Ok(());
        }
        for above in above(path) {
            self.one_directory(path, &self.root.join(above))?;
        }
        self.last_parent = parent;
        Ok(())
    }

    fn one_directory(&self, path: &RelativePath, directory: &Path) -> Result<(), ArchiveError> {
        match fs::symlink_metadata(directory) {
            Ok(metadata) if metadata.is_dir() => Ok(()),
            Ok(_) if path.join_to(self.root) == directory => Err(refused(path.as_str(), EntryRefusal::Duplicate)),
            Ok(_) => {
                let above = directory.strip_prefix(self.root).unwrap_or(directory).display().to_string();
                Err(refused(path.as_str(), EntryRefusal::BelowAFile(above)))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => create_directory(directory)
                .map_err(|source| VolumeError::Directory { path: directory.to_owned(), source: source.into() }.into()),
            Err(error) => Err(write_error(directory, error)),
        }
    }
}

/// Whatever the umask takes away is given back. The set-group-id bit, which an `fsGroup` sets and a new directory
/// inherits, stays.
fn create_directory(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new().mode(DIRECTORY_MODE).create(path)?;
    let mode = fs::metadata(path)?.permissions().mode();
    let _ = fs::set_permissions(path, fs::Permissions::from_mode(mode | DIRECTORY_MODE));
    Ok(())
}

/// The paths of the directories above a path, outermost first.
fn above(path: &RelativePath) -> impl Iterator<Item = &str> {
    path.as_str().match_indices('/').map(|(end, _)| &path.as_str()[..end])
}

/// Whether a link cannot lead out of the tree, whatever the links are that it meets on its way: it goes up first, no
/// further than to the tree's root, and then down only. Where each link is like that, and nothing is written through a
/// link, every step ends inside.
fn stays_inside(link: &RelativePath, target: &str) -> bool {
    if target.is_empty() || target.starts_with('/') || target.contains('\0') {
        return false;
    }
    let mut depth = above(link).count();
    let mut is_going_down = false;
    for segment in target.split('/') {
        match segment {
            "" | "." => {}
            ".." if is_going_down || depth == 0 => return false,
            ".." => depth -= 1,
            _ => is_going_down = true,
        }
    }
    true
}

pub(super) fn refused(entry: &str, reason: EntryRefusal) -> ArchiveError {
    ArchiveError::Entry { entry: entry.to_owned(), reason }
}

fn new_entry_error(path: &RelativePath, target: &Path, error: io::Error) -> ArchiveError {
    if error.kind() == io::ErrorKind::AlreadyExists {
        refused(path.as_str(), EntryRefusal::Duplicate)
    } else {
        write_error(target, error)
    }
}

fn write_error(path: &Path, error: io::Error) -> ArchiveError {
    ArchiveError::Volume(VolumeError::Write { path: path.to_owned(), source: error.into() })
}
