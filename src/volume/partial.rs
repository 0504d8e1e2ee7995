//! A file that is not whole yet, and the journal beside it.

use std::{
    fs::{self, File},
    io::{self, Read as _, Write as _},
    os::{
        fd::{AsFd as _, AsRawFd as _},
        unix::fs::{FileExt as _, OpenOptionsExt as _},
    },
    path::{Path, PathBuf},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use rustix::fs::{Advice, FallocateFlags, OFlags, fadvise};

use super::{FILE_MODE, Stamp, VolumeError, direct::Direct, write_error};
use crate::{ranges::ByteRange, units::MIB};

/// Below this, writing finds out as early as reserving.
const RESERVE_FROM_BYTES: u64 = MIB;

/// How much is best written at once to the page cache: large enough that the system calls cost nothing, small enough to stay
/// in the processor's cache until then.
const WRITE_BYTES: usize = 256 << 10;

/// How much is handed to the disk at a time, where the page cache has to be spared.
const WRITE_BACK_BYTES: u64 = MIB;

/// How far behind the last byte the page cache is emptied: what the disk has to do in the meantime. Each connection may
/// have so much in it.
const BEHIND_BYTES: u64 = 4 * MIB;

/// How written bytes leave the page cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cache {
    /// When the kernel likes: the model server maps these files next.
    Keep,
    /// Soon after they are written: the page cache is charged to the container, and there is little of it.
    Drop,
}

/// A file that is not whole yet.
#[derive(Debug)]
pub struct Partial {
    pub(super) path: PathBuf,
    pub(super) file: File,
    journal_path: PathBuf,
    /// Whether an earlier run had reserved all of it: whoever keeps a journal has.
    was_reserved: bool,
    cache: Cache,
    /// The way past the page cache, where that has to be spared and there is one.
    direct: Option<Direct>,
    /// Held by whoever writes to the page cache: the kernel lets one write to a file at a time, and lets the others spin.
    writing: Mutex<()>,
    /// Whether write errors may come late: the file system is on the network, or in another process.
    is_remote: bool,
    has_journal: AtomicBool,
}

/// How far the disk is behind with a stretch that is written from its beginning on.
#[derive(Debug)]
pub struct WriteBehind {
    /// Handed to the disk up to here.
    started: u64,
    /// On the disk, and out of the page cache, up to here.
    dropped: u64,
}

impl WriteBehind {
    /// Of a stretch that begins here.
    pub fn new(offset_bytes: u64) -> Self {
        Self { started: offset_bytes, dropped: offset_bytes }
    }
}

/// A partial whose bytes are all there. It holds no descriptor: thousands of them may wait for their names.
#[derive(Debug)]
pub struct Whole {
    pub(super) path: PathBuf,
    pub(super) has_journal: bool,
}

impl Whole {
    /// A partial that an earlier run has completed.
    pub(super) fn found(path: PathBuf) -> Self {
        Self { path, has_journal: true }
    }

    /// Where it is until it has its final name.
    pub fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn remove_journal(&self) -> io::Result<()> {
        if !self.has_journal {
            return Ok(());
        }
        match fs::remove_file(self.path.with_extension("journal")) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

impl Partial {
    /// Opens the partial of this name, or creates it, with `len_bytes` reserved.
    pub(super) fn open(path: PathBuf, len_bytes: u64, cache: Cache) -> Result<Self, VolumeError> {
        let open = || {
            let file = File::options()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .mode(FILE_MODE)
                .custom_flags(OFlags::NOFOLLOW.bits() as i32)
                .open(&path)?;
            let present = file.metadata()?.len();
            if present != len_bytes {
                // Its extents are of a file of another length; kept, it could vouch for blocks that were only reserved.
                remove_file(&path.with_extension("journal"))?;
            }
            if present > len_bytes {
                file.set_len(len_bytes)?;
            } else if present < len_bytes && len_bytes >= RESERVE_FROM_BYTES {
                reserve(&file, len_bytes)?;
            }
            Ok((is_remote(&file)?, file, present == len_bytes))
        };
        let (is_remote, file, was_reserved) = open().map_err(|error| write_error(&path, error))?;
        let journal_path = path.with_extension("journal");
        // Over a network each write would wait for the server's disk.
        let is_direct = cache == Cache::Drop && len_bytes >= RESERVE_FROM_BYTES && !is_remote;
        let direct = if is_direct { Direct::open(&path, &file) } else { None };
        Ok(Self {
            path,
            file,
            journal_path,
            was_reserved,
            cache,
            direct,
            writing: Mutex::new(()),
            is_remote,
            has_journal: AtomicBool::new(false),
        })
    }

    /// How many bytes are best written at once from `offset_bytes` on.
    pub fn at_once(&self, offset_bytes: u64) -> usize {
        let direct = self.direct.as_ref().filter(|direct| direct.is_in_use());
        direct.map_or(WRITE_BYTES, |direct| direct.at_once(offset_bytes))
    }

    /// Writes all of `bytes` at `offset_bytes`.
    ///
    /// # Errors
    ///
    /// [`VolumeError::Write`] as the system has it.
    pub fn write_at(&self, bytes: &[u8], offset_bytes: u64) -> Result<(), VolumeError> {
        let direct = self.direct.as_ref().map(|direct| direct.write_at(bytes, offset_bytes)).transpose();
        let written = direct.map_err(|error| self.error(error))?.unwrap_or(0);
        let Some(rest) = bytes.get(written..).filter(|rest| !rest.is_empty()) else { return Ok(()) };
        let _one_at_a_time = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        self.file.write_all_at(rest, offset_bytes + written as u64).map_err(|error| self.error(error))
    }

    /// Reads `buffer.len()` bytes from `offset_bytes` on.
    ///
    /// # Errors
    ///
    /// [`VolumeError::Write`] as the system has it.
    pub fn read_at(&self, buffer: &mut [u8], offset_bytes: u64) -> Result<(), VolumeError> {
        self.file.read_exact_at(buffer, offset_bytes).map_err(|error| self.error(error))
    }

    /// All is written up to `end_bytes`. Where memory is scarce, the disk gets it in time, and what has had the time to get
    /// there leaves the page cache. Elsewhere nothing happens: the model server maps the file next.
    ///
    /// # Errors
    ///
    /// [`VolumeError::Write`] where the bytes have no place on the disk after all.
    pub fn written(&self, behind: &mut WriteBehind, end_bytes: u64) -> Result<(), VolumeError> {
        if !self.is_paced() {
            return Ok(());
        }
        let enough = |range: &ByteRange| range.len_bytes() >= WRITE_BACK_BYTES;
        if let Some(range) = between(behind.started, end_bytes).filter(enough) {
            // Advice only: a file system that cannot follow it keeps the pages, and the kernel reclaims them.
            let _ = start_write_back(&self.file, range);
            behind.started = end_bytes;
        }
        if let Some(old) = between(behind.dropped, end_bytes.saturating_sub(BEHIND_BYTES)).filter(enough) {
            behind.dropped = old.end_bytes();
            self.drop_pages(old)?;
        }
        Ok(())
    }

    /// Nothing more follows in this stretch: what is left of it leaves the page cache too.
    ///
    /// # Errors
    ///
    /// As [`Partial::written`].
    pub fn settle(&self, behind: &WriteBehind, end_bytes: u64) -> Result<(), VolumeError> {
        let rest = between(behind.dropped, end_bytes).filter(|_| self.is_paced());
        rest.map_or(Ok(()), |rest| self.drop_pages(rest))
    }

    /// Whether bytes go through a page cache that has to be spared.
    fn is_paced(&self) -> bool {
        self.cache == Cache::Drop && !self.direct.as_ref().is_some_and(Direct::is_in_use)
    }

    fn drop_pages(&self, range: ByteRange) -> Result<(), VolumeError> {
        match wait_for_write_back(&self.file, range) {
            Err(error) if is_of_disk(&error) => return Err(self.error(error)),
            _ => {}
        }
        let length = std::num::NonZeroU64::new(range.len_bytes());
        let _ = fadvise(self.file.as_fd(), range.offset_bytes(), length, Advice::DontNeed);
        Ok(())
    }

    /// Whether what a killed process has written may be lost although the machine has not been started anew.
    pub fn is_remote(&self) -> bool {
        self.is_remote
    }

    /// All bytes are there and verified. With `stamp` the file gets the modification time that says so to a later run;
    /// whether the file system keeps it comes back.
    ///
    /// # Errors
    ///
    /// [`VolumeError::Write`] where a file system on the network tells only now that the bytes have no place.
    pub fn complete(&self, stamp: Option<&Stamp>) -> Result<(Whole, bool), VolumeError> {
        if self.is_remote {
            self.file.sync_data().map_err(|error| self.error(error))?;
        }
        // Whatever the umask took away: the model server may run as another user. A file system
        // without modes refuses this, and then there is nothing to set.
        let _ = rustix::fs::fchmod(&self.file, FILE_MODE.into());
        let is_stamped = stamp.is_none_or(|stamp| stamp.put_on(&self.file));
        let whole = Whole { path: self.path.clone(), has_journal: self.has_journal.load(Ordering::Relaxed) };
        Ok((whole, is_stamped))
    }

    /// What an earlier run has noted beside this partial; empty where there is nothing, or where the notes are of a partial
    /// that has gone: somebody has removed it, or it has got its final name and the run ended there.
    pub fn read_journal(&self) -> Vec<u8> {
        if !self.was_reserved {
            return Vec::new();
        }
        let mut bytes = Vec::new();
        let open = File::options().read(true).custom_flags(OFlags::NOFOLLOW.bits() as i32).open(&self.journal_path);
        // A journal that cannot be read says nothing.
        match open.and_then(|mut file| file.read_to_end(&mut bytes)) {
            Ok(_) => bytes,
            Err(_) => Vec::new(),
        }
    }

    /// Begins a new journal that reads `beginning`, under its name at once and whole.
    ///
    /// # Errors
    ///
    /// [`VolumeError::Write`] as the system has it.
    pub fn begin_journal(&self, beginning: &[u8]) -> Result<Journal, VolumeError> {
        let path = &self.journal_path;
        let new = path.with_extension("journal-new");
        let create = || {
            let _ = fs::remove_file(&new);
            let mut file = File::options().append(true).create_new(true).mode(FILE_MODE).open(&new)?;
            file.write_all(beginning)?;
            fs::rename(&new, path)?;
            Ok(file)
        };
        self.has_journal.store(true, Ordering::Relaxed);
        create().map(|file| Journal { path: path.clone(), file }).map_err(|error| write_error(path, error))
    }

    fn error(&self, error: io::Error) -> VolumeError {
        write_error(&self.path, error)
    }
}

/// Notes beside a partial. Each is one write to the end of the file, so that a killed process leaves at most one of them
/// torn, and that at the end.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    file: File,
}

impl Journal {
    /// Adds one record.
    ///
    /// # Errors
    ///
    /// [`VolumeError::Write`] as the system has it.
    pub fn append(&self, record: &[u8]) -> Result<(), VolumeError> {
        (&self.file).write_all(record).map_err(|error| write_error(&self.path, error))
    }
}

/// Reserves the file's blocks, so that a full disk is found out before the first byte.
fn reserve(file: &File, len_bytes: u64) -> io::Result<()> {
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

fn between(begin_bytes: u64, end_bytes: u64) -> Option<ByteRange> {
    ByteRange::new(begin_bytes, end_bytes.saturating_sub(begin_bytes))
}

fn start_write_back(file: &File, range: ByteRange) -> io::Result<()> {
    sync_range(file, range, libc::SYNC_FILE_RANGE_WRITE)
}

fn wait_for_write_back(file: &File, range: ByteRange) -> io::Result<()> {
    let all = libc::SYNC_FILE_RANGE_WAIT_BEFORE | libc::SYNC_FILE_RANGE_WRITE | libc::SYNC_FILE_RANGE_WAIT_AFTER;
    sync_range(file, range, all)
}

/// Whether bytes are lost, and not just advice.
fn is_of_disk(error: &io::Error) -> bool {
    let number = error.raw_os_error();
    [libc::EIO, libc::ENOSPC, libc::EDQUOT].into_iter().any(|of_disk| number == Some(of_disk))
}

/// File systems that tell of a full or broken disk when bytes are sent, and not when they are written.
fn is_remote(file: &File) -> io::Result<bool> {
    const NFS: rustix::fs::FsWord = 0x6969;
    const SMB2: rustix::fs::FsWord = 0xfe53_4d42;
    const CIFS: rustix::fs::FsWord = 0xff53_4d42;
    const FUSE: rustix::fs::FsWord = 0x6573_5546;
    const CEPH: rustix::fs::FsWord = 0x00c3_6400;
    Ok([NFS, SMB2, CIFS, FUSE, CEPH].contains(&rustix::fs::fstatfs(file)?.f_type))
}

fn remove_file(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// `sync_file_range(2)`, which rustix does not have.
fn sync_range(file: &File, range: ByteRange, flags: libc::c_uint) -> io::Result<()> {
    let (offset, length) = (range.offset_bytes() as libc::off64_t, range.len_bytes() as libc::off64_t);
    // SAFETY: no memory is handed over, and the descriptor is open as long as `file` lives.
    #[expect(unsafe_code, reason = "one system call without a safe wrapper")]
    let result = unsafe { libc::sync_file_range(file.as_raw_fd(), offset, length, flags) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

pub(super) fn is_journal_or_partial(path: &Path) -> bool {
    path.extension().is_some_and(|extension| matches!(extension.to_str(), Some("partial" | "journal" | "journal-new")))
}
