//! Tar: a header of 512 bytes, the file's bytes, and the next header.
//!
//! The `tar` crate reads a header's fields; the walk is here, because what a tar says of the next entry in an entry of its
//! own (long names, PAX records) is read into memory, and needs a bound that the crate does not have.
//! <https://pubs.opengroup.org/onlinepubs/9799919799/utilities/pax.html#tag_20_94_13_06>

use std::io::{self, Read};

use tar::Header;

use super::{
    ArchiveError, EntryRefusal,
    compression::damaged,
    staging::{Staging, refused},
};
use crate::destination::{PathError, RelativePath};

const BLOCK_BYTES: usize = 512;

/// The longest name or set of PAX records: far more than any path, because records hold extended attributes as well.
const MAX_RECORDS_BYTES: u64 = 1 << 20;

/// How much may follow the end of the archive: writers fill up a record, of 10 KiB by default. It is read to its end, for
/// a compressed archive has its checksum there.
const MAX_PADDING_BYTES: u64 = 64 << 20;

/// What the entries in front of a file's own header say of it.
#[derive(Default)]
struct Announced {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size_bytes: Option<u64>,
    sparse: bool,
}

/// Extracts a tar that is not, or no longer, compressed.
pub(super) fn unpack(reader: &mut dyn Read, staging: &mut Staging<'_>) -> Result<(), ArchiveError> {
    let mut announced = Announced::default();
    let mut is_first = true;
    loop {
        let mut block = [0; BLOCK_BYTES];
        read_block(reader, &mut block)?;
        if block.iter().all(|byte| *byte == 0) {
            return read_padding(reader);
        }
        let header = Header::from_byte_slice(&block);
        check_header(header, is_first)?;
        is_first = false;
        let [kind] = header.as_old().linkflag;
        match kind {
            b'L' => announced.path = Some(until_nul(read_records(reader, header)?)),
            b'K' => announced.link = Some(until_nul(read_records(reader, header)?)),
            b'x' | b'X' => announced.take_records(&read_records(reader, header)?)?,
            b'g' => check_global(&read_records(reader, header)?)?,
            _ => extract(kind, reader, header, std::mem::take(&mut announced), staging)?,
        }
    }
}

fn read_block(reader: &mut dyn Read, block: &mut [u8; BLOCK_BYTES]) -> Result<(), ArchiveError> {
    reader.read_exact(block).map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => ArchiveError::Damaged("it is cut off: it has no mark of its end".to_owned()),
        _ => damaged(error),
    })
}

/// The sum of the header's bytes, with the sum's own field as blanks.
fn check_header(header: &Header, is_first: bool) -> Result<(), ArchiveError> {
    const CHECKSUM: std::ops::Range<usize> = 148..156;
    let bytes = header.as_bytes().iter().enumerate();
    let sum: u32 = bytes.map(|(at, byte)| if CHECKSUM.contains(&at) { 32 } else { u32::from(*byte) }).sum();
    match header.cksum() {
        Ok(stored) if stored == sum => Ok(()),
        Ok(_) | Err(_) if is_first => {
            Err(ArchiveError::Damaged("it is not a tar, nor one compressed with gzip, bzip2, xz or zstd".to_owned()))
        }
        Ok(_) | Err(_) => Err(ArchiveError::Damaged("the header of an entry has the wrong checksum".to_owned())),
    }
}

fn read_padding(reader: &mut dyn Read) -> Result<(), ArchiveError> {
    let read = io::copy(&mut reader.take(MAX_PADDING_BYTES + 1), &mut io::sink()).map_err(damaged)?;
    if read > MAX_PADDING_BYTES {
        return Err(ArchiveError::Damaged(format!("more than {} MiB follow its end", MAX_PADDING_BYTES >> 20)));
    }
    Ok(())
}

/// The content of an entry that is about another entry.
fn read_records(reader: &mut dyn Read, header: &Header) -> Result<Vec<u8>, ArchiveError> {
    let size = header.entry_size().map_err(damaged)?;
    if size > MAX_RECORDS_BYTES {
        return Err(ArchiveError::Damaged(format!(
            "the records in front of an entry take {size} bytes; {MAX_RECORDS_BYTES} are the most"
        )));
    }
    let mut records = Vec::new();
    reader.take(size).read_to_end(&mut records).map_err(damaged)?;
    if records.len() as u64 != size {
        return Err(damaged(io::ErrorKind::UnexpectedEof.into()));
    }
    skip_to_block(reader, size)?;
    Ok(records)
}

/// The rest of the block in which an entry's content ends.
fn skip_to_block(reader: &mut dyn Read, size_bytes: u64) -> Result<(), ArchiveError> {
    let block = BLOCK_BYTES as u64;
    let rest = (block - size_bytes % block) % block;
    let skipped = io::copy(&mut reader.take(rest), &mut io::sink()).map_err(damaged)?;
    if skipped == rest { Ok(()) } else { Err(damaged(io::ErrorKind::UnexpectedEof.into())) }
}

fn until_nul(mut text: Vec<u8>) -> Vec<u8> {
    let end = text.iter().position(|byte| *byte == 0).unwrap_or(text.len());
    text.truncate(end);
    text
}

impl Announced {
    fn take_records(&mut self, records: &[u8]) -> Result<(), ArchiveError> {
        for (key, value) in pax_records(records)? {
            match key {
                b"path" => self.path = Some(value.to_owned()),
                b"linkpath" => self.link = Some(value.to_owned()),
                b"size" => {
                    let size = std::str::from_utf8(value).ok().and_then(|size| size.parse().ok());
                    self.size_bytes = Some(size.ok_or_else(malformed)?);
                }
                // With these the entry's content is a map of the file and not the file.
                key if key.starts_with(b"GNU.sparse.") => self.sparse = true,
                // Times, owners and attributes, which are not taken over.
                _ => {}
            }
        }
        Ok(())
    }
}

/// Records that are meant for every entry. Writers put comments there; programs disagree on anything else.
fn check_global(records: &[u8]) -> Result<(), ArchiveError> {
    let changes_entries =
        |key: &[u8]| matches!(key, b"path" | b"linkpath" | b"size") || key.starts_with(b"GNU.sparse.");
    match pax_records(records)?.into_iter().find(|(key, _)| changes_entries(key)) {
        Some((key, _)) => Err(ArchiveError::Unsupported(format!(
            "its global PAX header sets {:?} for every entry",
            String::from_utf8_lossy(key)
        ))),
        None => Ok(()),
    }
}

/// Key and value.
type Record<'a> = (&'a [u8], &'a [u8]);

/// Each is `LENGTH KEY=VALUE\n`, with the length of all of it; a value may hold line breaks.
fn pax_records(mut records: &[u8]) -> Result<Vec<Record<'_>>, ArchiveError> {
    let mut found = Vec::new();
    while !records.is_empty() {
        let (record, rest) = split_record(records).ok_or_else(malformed)?;
        found.push(record);
        records = rest;
    }
    Ok(found)
}

fn split_record(records: &[u8]) -> Option<(Record<'_>, &[u8])> {
    let blank = records.iter().position(|byte| *byte == b' ')?;
    let length: usize = std::str::from_utf8(records.get(..blank)?).ok()?.parse().ok()?;
    let (record, rest) = records.split_at_checked(length)?;
    let content = record.get(blank + 1..)?.strip_suffix(b"\n")?;
    let equals = content.iter().position(|byte| *byte == b'=')?;
    Some(((content.get(..equals)?, content.get(equals + 1..)?), rest))
}

fn malformed() -> ArchiveError {
    ArchiveError::Damaged("a PAX record in it is malformed".to_owned())
}

fn extract(
    kind: u8,
    reader: &mut dyn Read,
    header: &Header,
    announced: Announced,
    staging: &mut Staging<'_>,
) -> Result<(), ArchiveError> {
    let name = announced.path.unwrap_or_else(|| header.path_bytes().into_owned());
    let shown = String::from_utf8_lossy(&name).into_owned();
    let Some(path) = parse_path(&name)? else {
        // `./`, which `tar -C directory .` writes.
        return match kind {
            b'5' => Ok(()),
            _ => Err(refused(&shown, EntryRefusal::Path(PathError::Empty))),
        };
    };
    let link = || announced.link.clone().or_else(|| header.link_name_bytes().map(|name| name.into_owned()));
    match kind {
        _ if announced.sparse => Err(refused(&shown, EntryRefusal::Sparse)),
        b'S' => Err(refused(&shown, EntryRefusal::Sparse)),
        // Before there was a kind for directories, a slash at the end said it.
        0 if name.ends_with(b"/") => staging.directory(&path),
        0 | b'0' | b'7' => {
            let size = match announced.size_bytes {
                Some(size) => size,
                None => header.entry_size().map_err(damaged)?,
            };
            staging.check_room(size)?;
            let executable = header.mode().is_ok_and(|mode| mode & 0o100 != 0);
            staging.file(&path, size, executable, reader)?;
            skip_to_block(reader, size)
        }
        // What follows has no content, whatever its size says.
        b'5' => staging.directory(&path),
        b'2' => {
            let target = String::from_utf8(link().unwrap_or_default());
            staging.symlink(&path, &target.map_err(|_| refused(&shown, EntryRefusal::NotUtf8))?)
        }
        b'1' => {
            let target = link().unwrap_or_default();
            let nothing =
                || refused(&shown, EntryRefusal::LinkToNothing(String::from_utf8_lossy(&target).into_owned()));
            let original = parse_path(&target).map_err(|_| nothing())?.ok_or_else(nothing)?;
            staging.hard_link(&path, &original)
        }
        b'3' | b'4' | b'6' => Err(refused(&shown, EntryRefusal::Special)),
        other => Err(refused(&shown, EntryRefusal::Kind(other.into()))),
    }
}

/// The path of an entry; `None` for the directory that was packed itself. Segments that are `.` drop out.
pub(super) fn parse_path(name: &[u8]) -> Result<Option<RelativePath>, ArchiveError> {
    let Ok(text) = std::str::from_utf8(name) else {
        return Err(refused(&String::from_utf8_lossy(name), EntryRefusal::NotUtf8));
    };
    let mut path = String::with_capacity(text.len());
    for segment in text.split('/').filter(|segment| *segment != ".") {
        path.push_str(segment);
        path.push('/');
    }
    path.pop();
    if !text.is_empty() && !text.starts_with('/') && path.bytes().all(|byte| byte == b'/') {
        return Ok(None);
    }
    RelativePath::parse(&path).map(Some).map_err(|reason| refused(text, EntryRefusal::Path(reason)))
}
