//! Zip: a directory at the end of the file, and each file's bytes where it says.
//!
//! `rawzip` reads the directory entry by entry and allocates nothing for it; only the directory counts, as for every
//! other program. <https://pkware.cachefly.net/webdocs/casestudies/APPNOTE.TXT>

use std::io::{self, Read};

use crc_fast::{CrcAlgorithm, Digest};
use flate2::read::DeflateDecoder;
use rawzip::{CompressionMethod, ReaderAt, ZipFileHeaderRecord, ZipLocator};

use super::{
    ArchiveError, EntryRefusal, Source,
    compression::damaged,
    staging::{Staging, refused},
    tar::parse_path,
};
use crate::destination::PathError;

/// One record of the directory must fit into it: a name, its extra fields and a comment have 64 KiB each at most.
const BUFFER_BYTES: usize = 256 << 10;

/// The longest text that is read as the target of a link: PATH_MAX.
const MAX_TARGET_BYTES: u64 = 4_096;

type Archive<'a> = rawzip::ZipArchive<Source<'a>>;

impl ReaderAt for Source<'_> {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        Source::read_at(self, buffer, offset)
    }
}

/// Extracts a zip.
pub(super) fn unpack(source: Source<'_>, staging: &mut Staging<'_>) -> Result<(), ArchiveError> {
    let length = source.file.metadata().map_err(ArchiveError::Read)?.len();
    let mut buffer = vec![0; BUFFER_BYTES];
    let located = ZipLocator::new().locate_in_reader(source, &mut buffer, length);
    let archive = located.map_err(|(_, error)| unreadable(error))?;
    // Everything that can be known is known before the first byte is written.
    staging.check_room(check_entries(&archive, &mut buffer)?)?;
    let mut entries = archive.entries(&mut buffer);
    while let Some(entry) = entries.next_entry().map_err(unreadable)? {
        extract(&archive, &entry, staging)?;
    }
    Ok(())
}

/// What all files take together. Refuses what cannot be unpacked by its directory entry alone.
fn check_entries(archive: &Archive<'_>, buffer: &mut [u8]) -> Result<u64, ArchiveError> {
    let mut total: u64 = 0;
    let mut count: u64 = 0;
    let mut entries = archive.entries(buffer);
    while let Some(entry) = entries.next_entry().map_err(unreadable)? {
        check_entry(&entry)?;
        total = total.saturating_add(entry.uncompressed_size_hint());
        count += 1;
    }
    let announced = archive.entries_hint();
    // Without zip64 the number is kept in 16 bits.
    if count != announced && count & 0xffff != announced {
        return Err(ArchiveError::Damaged(format!("it has {count} entries, and says {announced}")));
    }
    Ok(total)
}

fn check_entry(entry: &ZipFileHeaderRecord<'_>) -> Result<(), ArchiveError> {
    let name = entry.file_path();
    let shown = String::from_utf8_lossy(name.as_ref()).into_owned();
    let refuse = |reason| Err(refused(&shown, reason));
    if parse_path(name.as_ref())?.is_none() && !entry.is_dir() {
        return refuse(EntryRefusal::Path(PathError::Empty));
    }
    if entry.flags().is_encrypted() {
        return refuse(EntryRefusal::Encrypted);
    }
    match entry.compression_method() {
        CompressionMethod::STORE | CompressionMethod::DEFLATE => Ok(()),
        other => refuse(EntryRefusal::Method(other.as_u16())),
    }
}

fn extract(
    archive: &Archive<'_>,
    entry: &ZipFileHeaderRecord<'_>,
    staging: &mut Staging<'_>,
) -> Result<(), ArchiveError> {
    let name = entry.file_path();
    let Some(path) = parse_path(name.as_ref())? else { return Ok(()) };
    if entry.is_dir() {
        return staging.directory(&path);
    }
    let size = entry.uncompressed_size_hint();
    let found = archive.get_entry(entry.wayfinder()).map_err(unreadable)?;
    let packed = found.reader();
    let content: Box<dyn Read + '_> = match entry.compression_method() {
        CompressionMethod::DEFLATE => Box::new(DeflateDecoder::new(packed)),
        _ => Box::new(packed),
    };
    let mut content = Checked { content, size_bytes: 0, crc: Digest::new(CrcAlgorithm::Crc32IsoHdlc) };
    // File types as `stat` has them.
    match entry.mode().value() & 0o170_000 {
        0o120_000 => {
            let mut target = Vec::new();
            content.by_ref().take(MAX_TARGET_BYTES).read_to_end(&mut target).map_err(damaged)?;
            content.check(entry)?;
            let target = String::from_utf8(target).map_err(|_| refused(path.as_str(), EntryRefusal::NotUtf8))?;
            staging.symlink(&path, &target)
        }
        0o020_000 | 0o060_000 | 0o010_000 | 0o140_000 => Err(refused(path.as_str(), EntryRefusal::Special)),
        _ => {
            let executable = entry.mode().permissions() & 0o100 != 0;
            staging.file(&path, size, executable, &mut content)?;
            content.check(entry)
        }
    }
}

/// An entry's content, counted and summed while it is read.
struct Checked<R> {
    content: R,
    size_bytes: u64,
    crc: Digest,
}

impl<R: Read> Read for Checked<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.content.read(buffer)?;
        self.crc.update(buffer.get(..read).unwrap_or_default());
        self.size_bytes += read as u64;
        Ok(read)
    }
}

impl<R: Read> Checked<R> {
    /// Whether it is at its end, and as the directory says.
    fn check(mut self, entry: &ZipFileHeaderRecord<'_>) -> Result<(), ArchiveError> {
        let rest = self.read(&mut [0]).map_err(damaged)?;
        let size = entry.uncompressed_size_hint();
        let fault = if rest > 0 || self.size_bytes != size {
            format!("its length is not the {size} bytes that its directory entry says")
        } else if self.crc.finalize() != u64::from(entry.crc32()) {
            "its CRC-32 is not that of its directory entry".to_owned()
        } else {
            return Ok(());
        };
        let name = String::from_utf8_lossy(entry.file_path().as_ref()).into_owned();
        Err(ArchiveError::Damaged(format!("entry {name:?}: {fault}")))
    }
}

fn unreadable(error: rawzip::Error) -> ArchiveError {
    match error.kind() {
        rawzip::ErrorKind::MissingEndOfCentralDirectory => {
            ArchiveError::Damaged("it is not a zip, or its end is cut off".to_owned())
        }
        rawzip::ErrorKind::Eof => damaged(io::ErrorKind::UnexpectedEof.into()),
        _ => ArchiveError::Damaged(error.to_string()),
    }
}
