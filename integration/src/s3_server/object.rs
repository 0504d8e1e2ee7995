//! What an object is before it is in a bucket: its content, its checksum, and how it was uploaded.
//!
//! Content is never copied: bytes and mapped files are shared slices, and a [`Pattern`] is generated while it is sent,
//! so a test may serve 100 GiB from a few hundred KiB. Digests are computed once, when the object is put.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::path::Path;

use aws_lc_rs::digest;
use bytes::Bytes;
use crc_fast::CrcAlgorithm;
use md5::{Digest as _, Md5};

/// How much of a body is sent at once: large enough to fill TLS records and socket buffers, small enough that a fault
/// in the middle of a body is in the middle.
pub(crate) const CHUNK_BYTES: u64 = 128 * 1024;

/// The length of the block that a pattern repeats. It is odd, so that no two positions whose distance is a power of two
/// (the usual part sizes) hold the same bytes, and a part written to the wrong place is noticed.
const PATTERN_BLOCK_BYTES: usize = (1 << 20) + 7;

/// The content of an object.
#[derive(Debug, Clone)]
pub enum ObjectData {
    /// Bytes in memory, or a mapped file.
    Bytes(Bytes),
    /// Generated content.
    Pattern(Pattern),
}

/// Deterministic content that costs no memory: the same seed gives the same bytes at the same position.
#[derive(Debug, Clone)]
pub struct Pattern {
    seed: u64,
    length: u64,
    block: Bytes,
}

impl Pattern {
    /// `length` bytes that depend on `seed`.
    pub fn new(seed: u64, length: u64) -> Self {
        let mut block = Vec::with_capacity(PATTERN_BLOCK_BYTES + 8);
        let mut state = seed;
        while block.len() < PATTERN_BLOCK_BYTES {
            // SplitMix64: short, and good enough that flipped or shifted data never looks right.
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut word = state;
            word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            block.extend_from_slice(&(word ^ (word >> 31)).to_le_bytes());
        }
        block.truncate(PATTERN_BLOCK_BYTES);
        Self { seed, length, block: block.into() }
    }
}

impl ObjectData {
    /// The length in bytes.
    pub fn len(&self) -> u64 {
        match self {
            ObjectData::Bytes(bytes) => bytes.len() as u64,
            ObjectData::Pattern(pattern) => pattern.length,
        }
    }

    /// Whether there is no byte.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The SHA-256 of the whole content, in lower-case hexadecimal.
    pub fn sha256_hex(&self) -> String {
        hex(&self.sha256(0..self.len()))
    }

    /// The bytes of `range`, in chunks.
    pub(crate) fn chunks(&self, range: Range<u64>) -> Chunks {
        Chunks { data: self.clone(), range }
    }

    /// The bytes of `range` in one piece.
    pub(crate) fn read(&self, range: Range<u64>) -> Bytes {
        self.chunks(range).flatten().collect()
    }

    fn sha256(&self, range: Range<u64>) -> Vec<u8> {
        let mut context = digest::Context::new(&digest::SHA256);
        for chunk in self.chunks(range) {
            context.update(&chunk);
        }
        context.finish().as_ref().to_vec()
    }

    fn md5(&self, range: Range<u64>) -> [u8; 16] {
        let mut digest = Md5::new();
        for chunk in self.chunks(range) {
            digest.update(&chunk);
        }
        digest.finalize().into()
    }
}

/// The bytes of one range, a chunk at a time and without copying.
#[derive(Debug, Clone)]
pub(crate) struct Chunks {
    data: ObjectData,
    range: Range<u64>,
}

impl Chunks {
    pub(crate) fn remaining(&self) -> u64 {
        self.range.end - self.range.start
    }
}

impl Iterator for Chunks {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        if self.range.is_empty() {
            return None;
        }
        let length = self.remaining().min(CHUNK_BYTES) as usize;
        let chunk = match &self.data {
            ObjectData::Bytes(bytes) => {
                let start = self.range.start as usize;
                bytes.slice(start..start + length)
            }
            ObjectData::Pattern(Pattern { block, .. }) => {
                let start = (self.range.start % block.len() as u64) as usize;
                block.slice(start..block.len().min(start + length))
            }
        };
        self.range.start += chunk.len() as u64;
        Some(chunk)
    }
}

/// A checksum algorithm of S3.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Checksum {
    /// CRC-64/NVME, what S3 computes for every new object.
    Crc64Nvme,
    /// CRC-32 (ISO-HDLC).
    Crc32,
    /// CRC-32C (iSCSI).
    Crc32c,
    /// SHA-256; of a multipart object S3 only has the composite form.
    Sha256,
}

impl Checksum {
    /// What it is called at the end of `x-amz-checksum-`.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Checksum::Crc64Nvme => "crc64nvme",
            Checksum::Crc32 => "crc32",
            Checksum::Crc32c => "crc32c",
            Checksum::Sha256 => "sha256",
        }
    }

    /// The digest of the whole content as that header spells it.
    pub(crate) fn base64(self, data: &ObjectData) -> String {
        base64(&self.digest(data, 0..data.len()))
    }

    /// The digest of one range as S3 orders its bytes: big-endian, as many as the algorithm has.
    fn digest(self, data: &ObjectData, range: Range<u64>) -> Vec<u8> {
        let (algorithm, skip) = match self {
            Checksum::Sha256 => return data.sha256(range),
            Checksum::Crc64Nvme => (CrcAlgorithm::Crc64Nvme, 0),
            Checksum::Crc32 => (CrcAlgorithm::Crc32IsoHdlc, 4),
            Checksum::Crc32c => (CrcAlgorithm::Crc32Iscsi, 4),
        };
        let mut crc = crc_fast::Digest::new(algorithm);
        for chunk in data.chunks(range) {
            crc.update(&chunk);
        }
        crc.finalize().to_be_bytes()[skip..].to_vec()
    }
}

/// How the parts' checksums make the object's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChecksumType {
    /// The checksum of the whole content.
    FullObject,
    /// The checksum of the parts' checksums, with `-N` behind it.
    Composite,
}

/// An object to put into a bucket.
#[derive(Debug, Clone)]
pub struct Object {
    data: ObjectData,
    checksum: Option<Checksum>,
    composite: bool,
    part_bytes: Option<u64>,
    etag: Option<String>,
    modified_seconds: Option<i64>,
}

impl Object {
    /// An object with these bytes. Its ETag is the MD5, as S3 has it.
    pub fn bytes(bytes: impl Into<Bytes>) -> Self {
        Self::new(ObjectData::Bytes(bytes.into()))
    }

    /// A text object.
    pub fn text(text: &str) -> Self {
        Self::bytes(text.to_owned())
    }

    /// An object whose content is a mapped file, which must stay unchanged while the object exists. Its ETag is not an
    /// MD5, as with SSE-KMS, so that putting a large file is free.
    pub fn file(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        let length = file.metadata()?.len();
        let bytes = if length == 0 { Bytes::new() } else { Bytes::from_owner(map(&file)?) };
        let opaque = digest::digest(&digest::SHA256, format!("{} {length}", path.display()).as_bytes());
        Ok(Self::new(ObjectData::Bytes(bytes)).etag(&hex(&opaque.as_ref()[..16])))
    }

    /// An object of `length` generated bytes. Its ETag is derived from the seed and the length, not from the content,
    /// so that putting a large one is free.
    pub fn pattern(seed: u64, length: u64) -> Self {
        Self::new(ObjectData::Pattern(Pattern::new(seed, length)))
    }

    /// An object with this content.
    pub fn new(data: ObjectData) -> Self {
        Self { data, checksum: None, composite: false, part_bytes: None, etag: None, modified_seconds: None }
    }

    /// Gives it a checksum of the whole content (of the parts, for SHA-256 of a multipart object).
    pub fn checksum(mut self, checksum: Checksum) -> Self {
        self.checksum = Some(checksum);
        self
    }

    /// Makes the checksum of a multipart object one of its parts' checksums.
    pub fn composite(mut self) -> Self {
        self.composite = true;
        self
    }

    /// Makes it an object that was uploaded in parts of this size: the ETag ends in `-N`, `partNumber` selects a part.
    pub fn multipart(mut self, part_bytes: u64) -> Self {
        assert!(part_bytes > 0, "a part holds at least one byte");
        self.part_bytes = Some(part_bytes);
        self
    }

    /// Replaces the ETag (without its quotes; a multipart object's still gets its `-N`).
    pub fn etag(mut self, etag: &str) -> Self {
        self.etag = Some(etag.to_owned());
        self
    }

    /// Sets when it was last modified, in seconds after the epoch; without it, that is when it is put.
    pub fn modified(mut self, seconds: i64) -> Self {
        self.modified_seconds = Some(seconds);
        self
    }

    /// The content, for example to compare a volume with.
    pub fn data(&self) -> &ObjectData {
        &self.data
    }

    /// Computes the digests.
    pub(crate) fn digested(self) -> Digested {
        let length = self.data.len();
        let parts: Vec<Range<u64>> = match self.part_bytes {
            None => Vec::new(),
            Some(_) if length == 0 => std::iter::once(0..0).collect(),
            Some(size) => {
                (0..length.div_ceil(size)).map(|index| index * size..length.min((index + 1) * size)).collect()
            }
        };
        let etag = match (&self.etag, &self.data) {
            (Some(given), _) => given.clone(),
            (None, ObjectData::Pattern(pattern)) => {
                format!("{:016x}{:016x}", pattern.seed, pattern.length)
            }
            (None, ObjectData::Bytes(_)) if parts.is_empty() => hex(&self.data.md5(0..length)),
            (None, ObjectData::Bytes(_)) => {
                let digests = parts.iter().flat_map(|part| self.data.md5(part.clone()));
                hex(&Md5::digest(digests.collect::<Vec<u8>>()))
            }
        };
        let etag = match parts.len() {
            0 => etag,
            count => format!("{etag}-{count}"),
        };
        let checksum =
            self.checksum.map(|algorithm| StoredChecksum::compute(algorithm, self.composite, &self.data, &parts));
        Digested { data: self.data, etag, checksum, parts, modified_seconds: self.modified_seconds }
    }
}

/// Maps a file of the harness's own making.
#[allow(unsafe_code)]
fn map(file: &File) -> io::Result<memmap2::Mmap> {
    // SAFETY: the mapped files are made by the tests, in directories of their own, and are neither truncated nor
    // rewritten while they are served; `Object::file` states that as its condition.
    unsafe { memmap2::Mmap::map(file) }
}

/// An object with everything that its replies need.
#[derive(Debug)]
pub(crate) struct Digested {
    pub(crate) data: ObjectData,
    /// Without quotes.
    pub(crate) etag: String,
    pub(crate) checksum: Option<StoredChecksum>,
    /// Empty for an object that was not uploaded in parts.
    pub(crate) parts: Vec<Range<u64>>,
    /// Where it is not the time of the upload.
    pub(crate) modified_seconds: Option<i64>,
}

/// A checksum as replies carry it.
#[derive(Debug, Clone)]
pub(crate) struct StoredChecksum {
    pub(crate) algorithm: Checksum,
    pub(crate) kind: ChecksumType,
    /// Base64, without the `-N` of a composite one.
    pub(crate) value: String,
    /// One per part, base64.
    pub(crate) parts: Vec<String>,
}

impl StoredChecksum {
    fn compute(algorithm: Checksum, composite: bool, data: &ObjectData, parts: &[Range<u64>]) -> Self {
        let composite = !parts.is_empty()
            && match algorithm {
                // https://docs.aws.amazon.com/AmazonS3/latest/userguide/checking-object-integrity-upload.html: SHA-256
                // has no full-object form for multipart uploads, CRC64NVME has no composite one.
                Checksum::Sha256 => true,
                Checksum::Crc64Nvme => false,
                Checksum::Crc32 | Checksum::Crc32c => composite,
            };
        let part_digests: Vec<Vec<u8>> = parts.iter().map(|part| algorithm.digest(data, part.clone())).collect();
        let value = if composite {
            let joined = ObjectData::Bytes(part_digests.concat().into());
            algorithm.digest(&joined, 0..joined.len())
        } else {
            algorithm.digest(data, 0..data.len())
        };
        Self {
            algorithm,
            kind: if composite { ChecksumType::Composite } else { ChecksumType::FullObject },
            value: base64(&value),
            parts: part_digests.iter().map(|digest| base64(digest)).collect(),
        }
    }
}

fn base64(bytes: &[u8]) -> String {
    base64_simd::STANDARD.encode_to_string(bytes)
}

/// Lower-case hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksums_are_the_published_check_values() {
        // The "check" values of the CRC catalogue, for the nine bytes 123456789.
        let data = ObjectData::Bytes(Bytes::from_static(b"123456789"));
        let of = |checksum: Checksum| hex(&checksum.digest(&data, 0..9));
        assert_eq!(of(Checksum::Crc32), "cbf43926");
        assert_eq!(of(Checksum::Crc32c), "e3069283");
        assert_eq!(of(Checksum::Crc64Nvme), "ae8b14860a799888");
    }

    #[test]
    fn a_multipart_object_has_a_composite_etag_of_its_parts() {
        let whole = Object::text("hello").digested();
        assert_eq!(whole.etag, "5d41402abc4b2a76b9719d911017c592");
        let parts = Object::text("hello").multipart(2).checksum(Checksum::Sha256).digested();
        assert!(parts.etag.ends_with("-3"), "{}", parts.etag);
        assert_eq!(parts.parts, [0..2, 2..4, 4..5]);
        let checksum = parts.checksum.unwrap();
        assert_eq!((checksum.kind, checksum.parts.len()), (ChecksumType::Composite, 3));
    }

    #[test]
    fn a_pattern_is_the_same_through_every_range_and_no_two_places_are_alike() {
        let data = ObjectData::Pattern(Pattern::new(7, 3 << 20));
        let read = |range: Range<u64>| data.chunks(range).flatten().collect::<Vec<u8>>();
        let whole = read(0..3 << 20);
        assert_eq!(whole.len(), 3 << 20);
        assert_eq!(read(1_000_000..1_200_000), whole[1_000_000..1_200_000]);
        assert_ne!(whole[..4096], whole[1 << 20..(1 << 20) + 4096]);
        assert_ne!(data.sha256_hex(), ObjectData::Pattern(Pattern::new(8, 3 << 20)).sha256_hex());
    }

    #[test]
    fn a_file_is_served_as_it_is() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("weights");
        std::fs::write(&path, b"tensor").unwrap();
        let object = Object::file(&path).unwrap();
        assert_eq!(object.data().sha256_hex(), Object::text("tensor").data().sha256_hex());
    }
}
