//! Directories by their descriptors, so that a name means the same at every moment.

use std::{io, os::fd::OwnedFd, path::Path};

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, fchmod, fstat, mkdirat, openat, renameat, statat};

use super::DIRECTORY_MODE;

/// Opens the destination, which may be a link.
pub(super) fn open_root(path: &Path) -> io::Result<OwnedFd> {
    Ok(openat(CWD, path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?)
}

/// Opens the directory in `parent` that has the last name of `path`, and makes it where there is none. A link is none.
pub(super) fn enter(parent: &OwnedFd, path: &Path) -> io::Result<OwnedFd> {
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match openat(parent, name, flags | OFlags::PATH, Mode::empty()) {
        Ok(directory) => return Ok(directory),
        Err(rustix::io::Errno::NOENT) => {}
        Err(error) => return Err(error.into()),
    }
    match mkdirat(parent, name, DIRECTORY_MODE.into()) {
        // Another file's thread was faster.
        Ok(()) | Err(rustix::io::Errno::EXIST) => {}
        Err(error) => return Err(error.into()),
    }
    let directory = openat(parent, name, flags | OFlags::RDONLY, Mode::empty())?;
    // Whatever the umask takes away is given back, and the set-group-id bit, which an `fsGroup` sets and a new directory
    // inherits, stays. A file system without modes refuses this, and then there is nothing to set.
    let mode = Mode::from_raw_mode(fstat(&directory)?.st_mode) | Mode::from(DIRECTORY_MODE);
    let _ = fchmod(&directory, mode);
    Ok(directory)
}

/// Gives a file its name in `parent`. A link that has it is replaced, not followed; a directory is refused.
pub(super) fn rename_into(file: &Path, parent: &OwnedFd, name: &str) -> io::Result<()> {
    let is_directory = |mode| FileType::from_raw_mode(mode) == FileType::Directory;
    if statat(parent, name, AtFlags::SYMLINK_NOFOLLOW).is_ok_and(|there| is_directory(there.st_mode)) {
        return Err(io::ErrorKind::IsADirectory.into());
    }
    Ok(renameat(CWD, file, parent, name)?)
}
