//! One process at a time on one destination.
//!
//! The lock is the kernel's (`flock(2)`), so it ends with its process, however that ends. It is on a file in the hidden
//! directory, which the holder removes at the end: whoever gets the lock of a file that has gone begins again.

use std::{
    fs::{self, File, TryLockError},
    io,
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::Path,
};

use rustix::fs::OFlags;

/// The file's name in the hidden directory.
pub(super) const NAME: &str = "lock";

/// The lock, as long as this lives.
#[derive(Debug)]
pub(super) struct Lock {
    _file: File,
}

#[derive(Debug)]
pub(super) enum Taken {
    Ours(Lock),
    /// Another process has it.
    Busy,
    /// This file system has no locks.
    Unsupported,
}

impl Lock {
    /// Tries to take the lock of a hidden directory, without waiting.
    pub(super) fn take(hidden: &Path) -> io::Result<Taken> {
        let path = hidden.join(NAME);
        let flags = OFlags::NOFOLLOW.bits() as i32;
        let file = File::options().write(true).create(true).truncate(false).mode(0o600).custom_flags(flags).open(&path);
        let file = match file {
            // The holder has just removed the directory: it is as good as busy, and free at the next look.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Taken::Busy),
            // Of another user, with another umask; partials would be refused the same way, and with better words.
            Err(error) => return Err(error),
            Ok(file) => file,
        };
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(Taken::Busy),
            Err(TryLockError::Error(_)) => return Ok(Taken::Unsupported),
        }
        let held = file.metadata()?;
        match fs::symlink_metadata(&path) {
            Ok(named) if (named.dev(), named.ino()) == (held.dev(), held.ino()) => {
                Ok(Taken::Ours(Self { _file: file }))
            }
            Ok(_) | Err(_) => Ok(Taken::Busy),
        }
    }
}
