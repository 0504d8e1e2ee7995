//! Memory that is held between the runs.
//!
//! Where a hypervisor takes free memory back (free page reporting of virtio-balloon), whoever takes a page next waits until
//! the host has brought it again, and that can cost more than all the rest of a download. So the free memory is held
//! here, and as much as a run needs is given back right before it: every client finds pages that are there.
//!
//! It is held as page cache of a file without blocks, which the kernel takes back by itself where it needs it, and which
//! counts as memory that may become dirty. Anonymous memory would be neither.

use std::{fs::File, io, num::NonZeroU64, os::unix::fs::FileExt as _, path::Path};

use rustix::fs::{Advice, fadvise};

use super::machine::memory_bytes;

/// What is taken and given back at a time.
const PIECE_BYTES: u64 = 128 << 20;

/// What stays free.
const FREE_BYTES: u64 = 768 << 20;

/// What is read at a time.
const READ_BYTES: usize = 1 << 20;

/// The memory held.
#[derive(Debug)]
pub(super) struct Ballast {
    file: Option<File>,
    pieces: u64,
    buffer: Vec<u8>,
}

impl Ballast {
    /// Holds nothing, ever.
    pub(super) fn none() -> Self {
        Self { file: None, pieces: 0, buffer: Vec::new() }
    }

    /// Holds nothing yet. The file has no name and no blocks.
    pub(super) fn new(directory: &Path) -> io::Result<Self> {
        let file = tempfile::tempfile_in(directory)?;
        // More than any machine's memory.
        file.set_len(1 << 42)?;
        Ok(Self { file: Some(file), pieces: 0, buffer: vec![0; READ_BYTES] })
    }

    /// Takes what is free.
    pub(super) fn take(&mut self) -> io::Result<()> {
        let Some(file) = &self.file else { return Ok(()) };
        let mut patience = 16;
        let mut free = memory_bytes("MemFree");
        while free > FREE_BYTES + PIECE_BYTES && patience > 0 {
            let begin = self.pieces * PIECE_BYTES;
            for offset in (begin..begin + PIECE_BYTES).step_by(READ_BYTES) {
                file.read_exact_at(&mut self.buffer, offset)?;
            }
            self.pieces += 1;
            let now = memory_bytes("MemFree");
            // Where the kernel would rather have it free, this would never end.
            patience -= u32::from(now > free - PIECE_BYTES / 2);
            free = now;
        }
        Ok(())
    }

    /// Leaves so much of it free, and pages that are there.
    pub(super) fn leave(&mut self, bytes: u64) -> io::Result<()> {
        self.take()?;
        let Some(file) = &self.file else { return Ok(()) };
        let pieces = bytes.div_ceil(PIECE_BYTES).min(self.pieces);
        self.pieces -= pieces;
        fadvise(file, self.pieces * PIECE_BYTES, NonZeroU64::new(pieces * PIECE_BYTES), Advice::DontNeed)?;
        Ok(())
    }
}
