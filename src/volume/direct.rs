//! Writing past the page cache (`O_DIRECT`): the disk takes the bytes from the program's own buffer.
//!
//! For containers with little memory. A page in the cache is charged to the container, has to be copied into, written out
//! and given back; a buffer that the disk reads itself costs none of that. In return a write lasts until the disk has the
//! bytes, and it has to consist of whole blocks: what does not goes through the page cache, block by block, so that no
//! block is ever written both ways. File systems that know no such writes say so at once, and are written the other way.

use std::{
    fs::File,
    io,
    os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _},
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
};

use rustix::fs::OFlags;

/// How much is best written at once: the thread waits until the disk has it, and half as much costs a quarter more
/// processor time.
const WRITE_BYTES: usize = 512 << 10;

/// Offset, length and address are multiples of this: of the logical block of any disk. A file system that wants more
/// refuses with `EINVAL`.
const BLOCK_BYTES: usize = 4096;

/// Memory that the disk can take bytes from.
#[derive(Debug, Default)]
pub struct Buffer {
    bytes: Vec<u8>,
}

impl Buffer {
    /// So many bytes of it. It grows to the most that was ever asked for.
    pub fn of(&mut self, len_bytes: usize) -> &mut [u8] {
        if self.bytes.len() < len_bytes + BLOCK_BYTES {
            self.bytes.resize(len_bytes + BLOCK_BYTES, 0);
        }
        let start = self.bytes.as_ptr().align_offset(BLOCK_BYTES);
        self.bytes.get_mut(start..start + len_bytes).unwrap_or_default()
    }
}

/// A file that is written past the page cache.
#[derive(Debug)]
pub(super) struct Direct {
    file: File,
    refused: AtomicBool,
}

impl Direct {
    /// Opens `path` once more, which is the name of `file`. `None` where the file system does not know such writes.
    pub(super) fn open(path: &Path, file: &File) -> Option<Self> {
        let flags = (OFlags::DIRECT | OFlags::NOFOLLOW).bits() as i32;
        let direct = File::options().write(true).custom_flags(flags).open(path).ok()?;
        let identity = |file: &File| file.metadata().map(|metadata| (metadata.dev(), metadata.ino()));
        // Two files under one name would each get a part of the bytes.
        let is_same = matches!((identity(&direct), identity(file)), (Ok(one), Ok(other)) if one == other);
        is_same.then(|| Self { file: direct, refused: AtomicBool::new(false) })
    }

    /// Whether bytes go this way, as far as is known.
    pub(super) fn is_in_use(&self) -> bool {
        !self.refused.load(Ordering::Relaxed)
    }

    /// How many bytes to write at once from here on: in the midst of a block, up to its end, so that what follows can go
    /// this way.
    pub(super) fn at_once(&self, offset_bytes: u64) -> usize {
        match (offset_bytes % BLOCK_BYTES as u64) as usize {
            0 => WRITE_BYTES,
            inside => BLOCK_BYTES - inside,
        }
    }

    /// Writes the whole blocks that `bytes` begins with. The rest, often nothing, has to go the other way.
    pub(super) fn write_at(&self, bytes: &[u8], offset_bytes: u64) -> io::Result<usize> {
        let is_aligned =
            offset_bytes.is_multiple_of(BLOCK_BYTES as u64) && bytes.as_ptr().align_offset(BLOCK_BYTES) == 0;
        if !is_aligned || !self.is_in_use() {
            return Ok(0);
        }
        let blocks = bytes.len() - bytes.len() % BLOCK_BYTES;
        let mut written = 0;
        // A write may end early, but one that ends within a block has met something that is better found out the other way.
        while written < blocks && written % BLOCK_BYTES == 0 {
            match self.file.write_at(bytes.get(written..blocks).unwrap_or_default(), offset_bytes + written as u64) {
                Ok(0) => break,
                Ok(count) => written += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
                    self.refused.store(true, Ordering::Relaxed);
                    break;
                }
                Err(error) => return Err(error),
            }
        }
        // The block that it ended in is written again, whole.
        Ok(written - written % BLOCK_BYTES)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file() -> (tempfile::NamedTempFile, Option<Direct>) {
        let file = tempfile::NamedTempFile::new().unwrap();
        let direct = Direct::open(file.path(), file.as_file());
        (file, direct)
    }

    #[test]
    fn a_buffer_begins_where_a_block_may_begin_and_is_as_long_as_asked_for() {
        let mut buffer = Buffer::default();
        for len in [1, 4096, 256 << 10] {
            let bytes = buffer.of(len);
            assert_eq!((bytes.as_ptr().align_offset(BLOCK_BYTES), bytes.len()), (0, len));
        }
    }

    #[test]
    fn whole_blocks_go_past_the_page_cache_and_nothing_else_does() {
        let (file, Some(direct)) = file() else {
            println!("skipped: this file system knows no O_DIRECT");
            return;
        };
        let mut buffer = Buffer::default();
        let bytes = buffer.of(3 * BLOCK_BYTES);
        bytes.fill(7);
        assert_eq!(direct.write_at(&bytes[..2 * BLOCK_BYTES + 5], 0).unwrap(), 2 * BLOCK_BYTES);
        assert_eq!(direct.write_at(&bytes[..BLOCK_BYTES - 1], 0).unwrap(), 0);
        assert_eq!(direct.write_at(&bytes[..BLOCK_BYTES], 1).unwrap(), 0, "within a block");
        assert_eq!(direct.write_at(&bytes[1..=BLOCK_BYTES], 0).unwrap(), 0, "memory that is not aligned");
        assert_eq!(std::fs::read(file.path()).unwrap(), vec![7; 2 * BLOCK_BYTES]);
        assert_eq!([0, 1, 4095, 4096].map(|at| direct.at_once(at)), [WRITE_BYTES, 4095, 1, WRITE_BYTES]);
        assert!(direct.is_in_use());
    }

    #[test]
    fn a_file_that_has_taken_the_name_is_not_written() {
        let (file, _) = file();
        let other = tempfile::NamedTempFile::new().unwrap();
        assert!(Direct::open(other.path(), file.as_file()).is_none());
    }
}
