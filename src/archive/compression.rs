//! The compression around a tar, told by its first bytes.

use std::io::{self, BufRead, BufReader, Read};

use bzip2::bufread::MultiBzDecoder;
use flate2::bufread::MultiGzDecoder;
use lzma_rust2::XzReader;
use ruzstd::decoding::{
    BlockDecodingStrategy, FrameDecoder,
    errors::{FrameDecoderError, ReadFrameHeaderError},
};

use super::{ArchiveError, Source};

/// The largest window that an xz or zstd archive may need. zstd's own tool has the same limit, and `xz -9` needs half.
pub const MAX_WINDOW_BYTES: u64 = 128 << 20;

/// What xz counts besides its dictionary.
const XZ_OVERHEAD_KIB: u32 = 1 << 10;

/// How much of the archive is read at once.
const READ_BYTES: usize = 128 << 10;

/// The tar inside an archive that may be compressed.
pub(super) fn open<'a>(source: Source<'a>) -> Result<Box<dyn Read + 'a>, ArchiveError> {
    let mut input = BufReader::with_capacity(READ_BYTES, source);
    let start = input.fill_buf().map_err(damaged)?;
    Ok(match start {
        [0x1f, 0x8b, ..] => Box::new(MultiGzDecoder::new(input)),
        [b'B', b'Z', b'h', ..] => Box::new(MultiBzDecoder::new(input)),
        [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => {
            let limit = (MAX_WINDOW_BYTES >> 10) as u32 + XZ_OVERHEAD_KIB;
            Box::new(XzReader::new_mem_limit(input, true, limit))
        }
        // The second begins a frame that holds nothing, which parallel compressors put in front.
        [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Box::new(ZstdFrames::new(input)),
        _ => Box::new(input),
    })
}

/// The error of a decoder, or of an archive that ends too early.
pub(super) fn damaged(error: io::Error) -> ArchiveError {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => ArchiveError::Damaged("it is cut off".to_owned()),
        io::ErrorKind::OutOfMemory => ArchiveError::Unsupported(format!(
            "it was packed with a window of more than {} MiB; pack it with a smaller one",
            MAX_WINDOW_BYTES >> 20
        )),
        _ => ArchiveError::Damaged(error.to_string()),
    }
}

/// A decoder of as many zstd frames as there are, with their checksums.
struct ZstdFrames<R> {
    input: R,
    decoder: FrameDecoder,
    in_frame: bool,
}

impl<R: BufRead> ZstdFrames<R> {
    fn new(input: R) -> Self {
        let mut decoder = FrameDecoder::new();
        decoder.set_max_window_size(MAX_WINDOW_BYTES);
        Self { input, decoder, in_frame: false }
    }

    /// Whether there is another frame.
    fn next_frame(&mut self) -> io::Result<bool> {
        while !self.input.fill_buf()?.is_empty() {
            match self.decoder.reset(&mut self.input) {
                Ok(()) => return Ok(true),
                Err(FrameDecoderError::ReadFrameHeaderError(ReadFrameHeaderError::SkipFrame { length, .. })) => {
                    let skipped = io::copy(&mut (&mut self.input).take(length.into()), &mut io::sink())?;
                    if skipped < length.into() {
                        return Err(io::ErrorKind::UnexpectedEof.into());
                    }
                }
                Err(error @ FrameDecoderError::WindowSizeTooBig { .. }) => {
                    return Err(io::Error::new(io::ErrorKind::OutOfMemory, error));
                }
                Err(error) => return Err(invalid(error)),
            }
        }
        Ok(false)
    }

    fn check(&self) -> io::Result<()> {
        match self.decoder.get_checksum_from_data() {
            Some(stored) if self.decoder.get_calculated_checksum() != Some(stored) => {
                Err(io::Error::new(io::ErrorKind::InvalidData, "a zstd frame has the wrong checksum"))
            }
            Some(_) | None => Ok(()),
        }
    }
}

fn invalid(error: FrameDecoderError) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

impl<R: BufRead> Read for ZstdFrames<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        loop {
            if !self.in_frame && !self.next_frame()? {
                return Ok(0);
            }
            self.in_frame = true;
            while self.decoder.can_collect() == 0 && !self.decoder.is_finished() {
                // A block at a time: no more than the window and one block is ever held.
                self.decoder.decode_blocks(&mut self.input, BlockDecodingStrategy::UptoBlocks(1)).map_err(invalid)?;
            }
            match self.decoder.read(buffer)? {
                0 => {
                    self.check()?;
                    self.in_frame = false;
                }
                read => return Ok(read),
            }
        }
    }
}
