//! Whether what is on the volume is what the store keeps.

use crate::{
    checksum::{Algorithm, Checksum, Expected, HashMismatch, Hasher, Mismatch, Running},
    ranges::ByteRange,
    report::Verified,
    volume::VolumeError,
};

/// How much is read at a time.
const READ_BYTES: usize = 256 << 10;

/// A stretch of an object and what it should add up to: the whole object, or one of its parts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Piece {
    pub(super) range: ByteRange,
    pub(super) expected: Expected,
}

/// What is on the volume is not what the store keeps.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum Difference {
    /// By a CRC.
    #[error(transparent)]
    Checksum(#[from] Mismatch),
    /// By a hash.
    #[error(transparent)]
    Hash(#[from] HashMismatch),
}

/// What the pieces are compared by, for the report.
pub(super) fn verified(pieces: &[Piece]) -> Verified {
    match pieces.first().map(|piece| &piece.expected) {
        Some(Expected::Crc(checksum)) => Verified::Checksum(checksum.algorithm()),
        Some(Expected::Hash(hash)) => Verified::Hash(hash.algorithm()),
        None => Verified::EtagOnly,
    }
}

/// The algorithm that extents are summed up with: the store's own, where it can be combined.
pub(super) fn extent_algorithm(pieces: &[Piece]) -> Algorithm {
    match pieces.first().map(|piece| &piece.expected) {
        Some(Expected::Crc(checksum)) => checksum.algorithm(),
        Some(Expected::Hash(_)) | None => Algorithm::Crc64Nvme,
    }
}

/// Compares one piece with what has arrived of it, or with what is on the volume where nobody has summed that up.
pub(super) fn check(
    piece: &Piece,
    arrived: Option<Checksum>,
    read_at: impl Fn(&mut [u8], u64) -> Result<(), VolumeError>,
) -> Result<Result<(), Difference>, VolumeError> {
    Ok(match &piece.expected {
        Expected::Crc(expected) => {
            let actual = match arrived {
                Some(arrived) if arrived.algorithm() == expected.algorithm() => arrived,
                _ => {
                    let mut running = Running::new(expected.algorithm());
                    read(piece.range, read_at, |bytes| running.update(bytes))?;
                    running.finish().checksum()
                }
            };
            expected.check(actual).map_err(Difference::Checksum)
        }
        Expected::Hash(expected) => {
            let mut hasher = Hasher::new(expected.algorithm());
            read(piece.range, read_at, |bytes| hasher.update(bytes))?;
            expected.check(hasher.finish()).map_err(Difference::Hash)
        }
    })
}

/// Reads a range in order.
pub(super) fn read(
    range: ByteRange,
    read_at: impl Fn(&mut [u8], u64) -> Result<(), VolumeError>,
    mut take: impl FnMut(&[u8]),
) -> Result<(), VolumeError> {
    let mut buffer = vec![0; READ_BYTES];
    let mut offset = range.offset_bytes();
    while offset < range.end_bytes() {
        let length = usize::try_from(range.end_bytes() - offset).map_or(READ_BYTES, |left| left.min(READ_BYTES));
        let Some(bytes) = buffer.get_mut(..length) else { break };
        read_at(bytes, offset)?;
        take(bytes);
        offset += length as u64;
    }
    Ok(())
}
