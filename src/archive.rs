//! Archives: one downloaded object that is a tar or a zip becomes the tree that is in it.
//!
//! Owns the way from a whole, verified archive to a tree of files, in two steps. [`unpack`] writes everything into an
//! empty, hidden staging directory; [`publish_tree`] gives the files their final names, once all of them are there. So an
//! archive that turns out to be broken or hostile at its last entry leaves nothing that looks like a model.
//!
//! # What is refused
//!
//! An archive comes from whoever could write to the bucket. An entry is refused, and the archive with it, if its name is
//! absolute, holds `..`, is not UTF-8 or cannot be a file ([`crate::destination::RelativePath`]'s rule, the same as for keys); if another
//! entry has that name already, or lies where a directory would have to be; if it is a device, a pipe or a socket. A
//! symbolic link is kept if it is relative and cannot lead out of the tree, whatever other links there are; a hard link if
//! it names a file that came before it. Nothing is ever written through a link. Owners, times and modes are not taken
//! over, except that a file that its owner may execute can be executed.
//!
//! What an entry says of its size is compared with the free space before its first byte, and no more than that is
//! written, so that a decompression bomb ends as a volume that is too small. Whatever must be held in memory has a bound:
//! names 1 MiB, the decoder's window [`MAX_WINDOW_BYTES`]. gzip and zip need a few hundred KiB, bzip2 about 4 MiB; xz and
//! zstd need the window that the archive was packed with, 8 MiB at their default levels, 64 MiB for `xz -9`, and up to
//! 128 MiB for `zstd --ultra -22` or `--long`.
//!
//! Which compression a tar has is seen from its first bytes and not from its name, as KServe does it (Python's `tarfile`).

mod compression;
mod publish;
mod staging;
mod tar;
#[cfg(test)]
mod tests;
mod zip;

use std::{
    cell::RefCell,
    fs::File,
    io::{self, Read},
    os::unix::fs::FileExt as _,
    path::Path,
};

use crate::{destination::PathError, volume::VolumeError};

pub use compression::MAX_WINDOW_BYTES;
pub use publish::publish_tree;

use staging::Staging;

/// What kind of archive a file name stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ArchiveKind {
    /// A tar, compressed or not.
    Tar,
    /// A zip.
    Zip,
}

/// The endings that KServe unpacks (what Python's `mimetypes` takes for a tar or a zip), and those of zstd.
const ENDINGS: [(&str, ArchiveKind); 12] = [
    (".tar", ArchiveKind::Tar),
    (".tar.gz", ArchiveKind::Tar),
    (".tgz", ArchiveKind::Tar),
    (".taz", ArchiveKind::Tar),
    (".tz", ArchiveKind::Tar),
    (".tar.bz2", ArchiveKind::Tar),
    (".tbz2", ArchiveKind::Tar),
    (".tar.xz", ArchiveKind::Tar),
    (".txz", ArchiveKind::Tar),
    (".tar.zst", ArchiveKind::Tar),
    (".tzst", ArchiveKind::Tar),
    (".zip", ArchiveKind::Zip),
];

impl ArchiveKind {
    /// The kind that a file of this name is, upper or lower case; `None` for what is no archive.
    pub fn of_file_name(name: &str) -> Option<Self> {
        let name = name.to_ascii_lowercase();
        let (_, kind) = ENDINGS.into_iter().find(|(ending, _)| {
            // A name that is nothing but the ending is a hidden file.
            name.strip_suffix(ending).is_some_and(|stem| stem.contains(|c| c != '.'))
        })?;
        Some(kind)
    }
}

/// What was in an archive.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Unpacked {
    /// Regular files and hard links.
    pub files: u64,
    /// The files' bytes.
    pub bytes: u64,
    /// Symbolic links.
    pub links: u64,
}

/// Why an archive is not unpacked.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// An entry that no tree below the destination can have.
    #[error("entry {entry:?} of the archive is refused: {reason}; pack the archive without it")]
    Entry {
        /// The entry's name, as far as it can be shown.
        entry: String,
        /// What is wrong with it. Not a `source`: the message reads better with the reason before the advice.
        reason: EntryRefusal,
    },
    /// It is cut off, or its checksums are wrong, or it is no archive of its kind.
    #[error("the archive is damaged: {0}; pack and upload it again")]
    Damaged(String),
    /// It is whole, and needs what this program does not have.
    #[error("the archive cannot be unpacked: {0}")]
    Unsupported(String),
    /// The archive's own bytes cannot be read back.
    #[error("the downloaded archive cannot be read back from the volume")]
    Read(#[source] io::Error),
    /// The volume refuses what is unpacked.
    #[error(transparent)]
    Volume(#[from] VolumeError),
}

impl ArchiveError {
    /// Whether the volume is to blame, and not the archive.
    pub fn is_of_volume(&self) -> bool {
        match self {
            Self::Read(_) | Self::Volume(_) => true,
            Self::Entry { .. } | Self::Damaged(_) | Self::Unsupported(_) => false,
        }
    }
}

/// What is wrong with one entry.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum EntryRefusal {
    /// Its name cannot be a path below the destination.
    #[error("{0}")]
    Path(PathError),
    /// Its name is not text.
    #[error("its name is not UTF-8")]
    NotUtf8,
    /// Something with its name is already there.
    #[error("another entry has the same name")]
    Duplicate,
    /// What is above it is no directory.
    #[error("{0:?}, which is above it, is a file or a link in the same archive")]
    BelowAFile(String),
    /// A symbolic link that may lead anywhere.
    #[error("it is a symbolic link to {0:?}, which may lead out of the destination")]
    LinkOut(String),
    /// A hard link to something that is no file of this archive.
    #[error("it is a hard link to {0:?}, which is no file that came before it")]
    LinkToNothing(String),
    /// A device, a pipe or a socket.
    #[error("it is a device, a pipe or a socket")]
    Special,
    /// A tar entry of another kind.
    #[error("it is of kind {0:?}, which has no place in a model")]
    Kind(char),
    /// A file with holes.
    #[error("it is a sparse file (tar --sparse)")]
    Sparse,
    /// A zip entry that needs a password.
    #[error("it is encrypted")]
    Encrypted,
    /// A zip entry packed in another way.
    #[error("its compression method {0} is neither stored nor deflated")]
    Method(u16),
}

/// Extracts an archive into the directory `staging`, which has to be empty and on the volume that the files are for.
/// Blocks for as long as it takes: not for an async thread.
///
/// `file` is open for reading; its position does not matter and is not moved.
///
/// # Errors
///
/// [`ArchiveError`]; what had been extracted by then stays in `staging`, for the caller to remove.
pub fn unpack(file: &File, kind: ArchiveKind, staging: &Path) -> Result<Unpacked, ArchiveError> {
    let source = Source { file, offset: 0, failure: &RefCell::new(None) };
    let mut staging = Staging::new(staging);
    let result = match kind {
        ArchiveKind::Tar => compression::open(source).and_then(|mut reader| tar::unpack(reader.as_mut(), &mut staging)),
        ArchiveKind::Zip => zip::unpack(source, &mut staging),
    };
    // Decoders hide why they have nothing to decode.
    match (result, source.failure.take()) {
        (_, Some(failure)) => Err(ArchiveError::Read(failure)),
        (result, None) => result.map(|()| staging.unpacked()),
    }
}

/// The archive's bytes, with an own position and a memory for the system's errors.
#[derive(Clone, Copy, Debug)]
struct Source<'a> {
    file: &'a File,
    offset: u64,
    failure: &'a RefCell<Option<io::Error>>,
}

impl Source<'_> {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        loop {
            match self.file.read_at(buffer, offset) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    let message = error.to_string();
                    self.failure.replace(Some(error));
                    return Err(io::Error::other(message));
                }
                read => return read,
            }
        }
    }
}

impl Read for Source<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.read_at(buffer, self.offset)?;
        self.offset += read as u64;
        Ok(read)
    }
}
