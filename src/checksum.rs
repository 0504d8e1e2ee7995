//! The checksums that the store keeps of whole objects, computed range by range.
//!
//! Owns which of the stored checksums can be checked, the digest of one range while it streams, and putting the ranges'
//! values together. Promises that nothing but an equal checksum of all the object's bytes counts as verified. Asking
//! for the checksums (HEAD with `x-amz-checksum-mode: ENABLED`) is left to `s3`, composite checksums part by part to
//! the engine.
//!
//! A range's answer usually carries no checksum (MinIO never sends one), but a CRC is linear: the CRCs of two
//! neighbours and the length of the second give the CRC of both. So each range streams straight to its place, in any
//! order, and no byte is read twice. SHA-1 and SHA-256 have no such rule.
//!
//! Source: <https://docs.aws.amazon.com/AmazonS3/latest/userguide/checking-object-integrity.html>.

mod hash;

use std::fmt;

use crc_fast::{CrcAlgorithm, Digest};
use thiserror::Error;

pub use hash::{Hash, HashAlgorithm, HashMismatch, Hasher};

/// A checksum that ranges can be combined to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Algorithm {
    /// S3's default since December 2024; for objects in several parts always of the full object.
    Crc64Nvme,
    /// The Castagnoli polynomial.
    Crc32c,
    /// The polynomial of zlib and gzip.
    Crc32,
}

impl Algorithm {
    /// As reports and the journal write it: `crc64nvme`, `crc32c`, `crc32`.
    pub fn name(self) -> &'static str {
        match self {
            Algorithm::Crc64Nvme => "crc64nvme",
            Algorithm::Crc32c => "crc32c",
            Algorithm::Crc32 => "crc32",
        }
    }

    fn value_bytes(self) -> usize {
        match self {
            Algorithm::Crc64Nvme => 8,
            Algorithm::Crc32c | Algorithm::Crc32 => 4,
        }
    }

    /// The CRC catalogue's polynomial, reflected, as all three algorithms take their bits.
    fn polynomial(self) -> u64 {
        match self {
            Algorithm::Crc64Nvme => 0x9A6C_9329_AC4B_C9B5,
            Algorithm::Crc32c => 0x82F6_3B78,
            Algorithm::Crc32 => 0xEDB8_8320,
        }
    }

    fn engine(self) -> CrcAlgorithm {
        match self {
            Algorithm::Crc64Nvme => CrcAlgorithm::Crc64Nvme,
            // The CRC catalogue's names for the two.
            Algorithm::Crc32c => CrcAlgorithm::Crc32Iscsi,
            Algorithm::Crc32 => CrcAlgorithm::Crc32IsoHdlc,
        }
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The checksum headers of a HEAD as they were received. A store sends the ones it has, most of the time one.
#[derive(Clone, Copy, Debug, Default)]
pub struct StoredChecksums<'a> {
    /// `x-amz-checksum-crc64nvme`.
    pub crc64nvme: Option<&'a str>,
    /// `x-amz-checksum-crc32c`.
    pub crc32c: Option<&'a str>,
    /// `x-amz-checksum-crc32`.
    pub crc32: Option<&'a str>,
    /// `x-amz-checksum-sha256`.
    pub sha256: Option<&'a str>,
    /// `x-amz-checksum-sha1`.
    pub sha1: Option<&'a str>,
    /// `x-amz-checksum-type`: `FULL_OBJECT` or `COMPOSITE`; older stores send none.
    pub checksum_type: Option<&'a str>,
}

/// What a stretch of bytes should add up to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expected {
    /// A CRC, which is combined from those of the ranges.
    Crc(Checksum),
    /// A hash, for which the bytes are read once more.
    Hash(Hash),
}

/// Whether a whole object can be checked against what the store keeps of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verifiability {
    /// Against this value.
    FullObject(Expected),
    /// Only part by part: the checksum is one of the parts' checksums.
    Composite,
    /// Not at all: a checksum header is there, but it is not a checksum. Worth a warning.
    Malformed(String),
    /// Not at all: the store keeps no checksum of this object.
    Absent,
}

impl StoredChecksums<'_> {
    /// The best of the checksums that can be checked: CRC64NVME, CRC32C, CRC32, which cost next to nothing, then
    /// SHA-256 and SHA-1. Where none can, the reason that tells most.
    pub fn verifiability(&self) -> Verifiability {
        let composite_type = self.checksum_type.is_some_and(|kind| kind.trim().eq_ignore_ascii_case("COMPOSITE"));
        let crc = |algorithm, value| Checksum::from_base64(algorithm, value).map(Expected::Crc);
        let hash = |algorithm, value| Hash::from_base64(algorithm, value).map(Expected::Hash);
        let mut composite = false;
        let mut malformed = None;
        for (name, value) in self.stored() {
            let Some(value) = value.map(str::trim) else { continue };
            let expected = match name {
                Name::Crc(algorithm) => crc(algorithm, value),
                Name::Hash(algorithm) => hash(algorithm, value),
            };
            // A composite value ends in the number of its parts, `-3`, and `-` is no character of base64.
            if composite_type || value.contains('-') {
                composite = true;
            } else if let Some(expected) = expected {
                return Verifiability::FullObject(expected);
            } else {
                malformed = malformed.or(Some(name.to_string()));
            }
        }
        match (composite, malformed) {
            (true, _) => Verifiability::Composite,
            (false, Some(name)) => Verifiability::Malformed(name),
            (false, None) => Verifiability::Absent,
        }
    }

    fn stored(&self) -> [(Name, Option<&str>); 5] {
        [
            (Name::Crc(Algorithm::Crc64Nvme), self.crc64nvme),
            (Name::Crc(Algorithm::Crc32c), self.crc32c),
            (Name::Crc(Algorithm::Crc32), self.crc32),
            (Name::Hash(HashAlgorithm::Sha256), self.sha256),
            (Name::Hash(HashAlgorithm::Sha1), self.sha1),
        ]
    }
}

enum Name {
    Crc(Algorithm),
    Hash(HashAlgorithm),
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Crc(algorithm) => algorithm.fmt(f),
            Self::Hash(algorithm) => algorithm.fmt(f),
        }
    }
}

/// A value of one algorithm: what a store keeps of an object, or what was computed of bytes. Prints as
/// `crc64nvme ae8b14860a799888`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Checksum {
    algorithm: Algorithm,
    value: u64,
}

impl Checksum {
    /// A header's value: base64 of the big-endian bytes. `None` where it is not, or has another length.
    pub fn from_base64(algorithm: Algorithm, value: &str) -> Option<Checksum> {
        let bytes = decode_base64(value)?;
        (bytes.len() == algorithm.value_bytes())
            .then(|| Checksum { algorithm, value: bytes.iter().fold(0, |value, byte| value << 8 | u64::from(*byte)) })
    }

    /// The algorithm.
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// The number; of a CRC32 the upper half is zero.
    pub fn value(&self) -> u64 {
        self.value
    }

    /// Compares what the store keeps, `self`, with what arrived.
    pub fn check(&self, actual: Checksum) -> Result<(), Mismatch> {
        if *self == actual { Ok(()) } else { Err(Mismatch { expected: *self, actual }) }
    }
}

impl fmt::Display for Checksum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:0width$x}", self.algorithm, self.value, width = self.algorithm.value_bytes() * 2)
    }
}

/// The bytes that arrived are not the bytes that were stored.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("the bytes received have the checksum {actual}, the store keeps {expected}")]
pub struct Mismatch {
    /// What the store keeps.
    pub expected: Checksum,
    /// What was computed of the bytes received.
    pub actual: Checksum,
}

/// The digest of one range while its bytes pass. A range that breaks off and continues keeps its digest.
#[derive(Clone)]
pub struct Running {
    algorithm: Algorithm,
    digest: Digest,
}

impl Running {
    /// The digest of no bytes yet.
    pub fn new(algorithm: Algorithm) -> Running {
        Running { algorithm, digest: Digest::new(algorithm.engine()) }
    }

    /// Takes the next bytes, in order. A few KiB at a time or more: short slices miss the vectorised path.
    pub fn update(&mut self, bytes: &[u8]) {
        self.digest.update(bytes);
    }

    /// The checksum of the bytes so far, and how many they are.
    pub fn finish(&self) -> RangeChecksum {
        RangeChecksum {
            checksum: Checksum { algorithm: self.algorithm, value: self.digest.finalize() },
            len_bytes: self.digest.get_amount(),
        }
    }
}

impl fmt::Debug for Running {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Running").field(&self.finish()).finish()
    }
}

/// The checksum of a stretch of bytes, with the length that combining needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RangeChecksum {
    checksum: Checksum,
    len_bytes: u64,
}

impl RangeChecksum {
    /// One that was computed earlier, as the journal of another run keeps it.
    pub fn new(algorithm: Algorithm, value: u64, len_bytes: u64) -> RangeChecksum {
        RangeChecksum { checksum: Checksum { algorithm, value }, len_bytes }
    }

    /// The checksum of these bytes alone.
    pub fn checksum(&self) -> Checksum {
        self.checksum
    }

    /// How many bytes it is of.
    pub fn len_bytes(&self) -> u64 {
        self.len_bytes
    }
}

/// The checksum of neighbours, in the object's order, as if they had been one. Costs some microseconds per range,
/// whatever its length. `None` where a range is of another algorithm, or where the lengths exceed 2^64 - 1.
pub fn combine(algorithm: Algorithm, ranges: impl IntoIterator<Item = RangeChecksum>) -> Option<RangeChecksum> {
    let none_yet = Running::new(algorithm).finish();
    ranges.into_iter().try_fold(none_yet, |before, next| {
        if next.checksum.algorithm != algorithm {
            return None;
        }
        let value = match (before.len_bytes, next.len_bytes) {
            (_, 0) => before.checksum.value,
            (0, _) => next.checksum.value,
            (_, len) => multiply(algorithm, shift(algorithm, len), before.checksum.value) ^ next.checksum.value,
        };
        Some(RangeChecksum::new(algorithm, value, before.len_bytes.checked_add(next.len_bytes)?))
    })
}

/// x^(8 len) modulo the polynomial: what a CRC is multiplied by when so many bytes follow. As zlib's `crc32_combine`
/// does it; the initial value and the final inversion cancel out. (`crc_fast::checksum_combine` squares whole matrices
/// instead, which takes 200 µs per range for CRC64NVME: as long as computing the CRC of 10 MiB. The tests compare both.)
fn shift(algorithm: Algorithm, mut len_bytes: u64) -> u64 {
    // Reflected: the highest bit is x^0.
    let one = 1 << (algorithm.value_bytes() * 8 - 1);
    let (mut product, mut power) = (one, one >> 8);
    while len_bytes > 0 {
        if len_bytes & 1 == 1 {
            product = multiply(algorithm, power, product);
        }
        power = multiply(algorithm, power, power);
        len_bytes >>= 1;
    }
    product
}

/// The product of two polynomials over GF(2), modulo the algorithm's own.
fn multiply(algorithm: Algorithm, left: u64, mut right: u64) -> u64 {
    let polynomial = algorithm.polynomial();
    let mut product = 0;
    for bit in (0..algorithm.value_bytes() * 8).rev() {
        // Masks instead of branches, which would be mispredicted every other time.
        product ^= right & (left >> bit & 1).wrapping_neg();
        right = right >> 1 ^ (polynomial & (right & 1).wrapping_neg());
    }
    product
}

/// RFC 4648 section 4, padded. Small enough to be its own: the values are eight or twelve characters.
fn decode_base64(text: &str) -> Option<Vec<u8>> {
    let digits = text.trim_end_matches('=');
    let padding = text.len() - digits.len();
    if text.is_empty() || !text.len().is_multiple_of(4) || padding > 2 {
        return None;
    }
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3);
    let (mut bits, mut bit_count) = (0_u32, 0);
    for digit in digits.bytes() {
        let sextet = match digit {
            b'A'..=b'Z' => digit - b'A',
            b'a'..=b'z' => digit - b'a' + 26,
            b'0'..=b'9' => digit - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        bits = bits << 6 | u32::from(sextet);
        bit_count += 6;
        if bit_count >= 8 {
            bit_count -= 8;
            bytes.push((bits >> bit_count) as u8);
            bits &= (1 << bit_count) - 1;
        }
    }
    // The bits that no byte takes are zero, or two texts would be the same value.
    (bits == 0).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ALL: [Algorithm; 3] = [Algorithm::Crc64Nvme, Algorithm::Crc32c, Algorithm::Crc32];

    /// The check values of the CRC catalogue, and their base64.
    const CHECK: [(Algorithm, u64, &str); 3] = [
        (Algorithm::Crc64Nvme, 0xAE8B_1486_0A79_9888, "rosUhgp5mIg="),
        (Algorithm::Crc32c, 0xE306_9283, "4waSgw=="),
        (Algorithm::Crc32, 0xCBF4_3926, "y/Q5Jg=="),
    ];

    fn of(algorithm: Algorithm, bytes: &[u8]) -> RangeChecksum {
        let mut running = Running::new(algorithm);
        running.update(bytes);
        running.finish()
    }

    fn full(algorithm: Algorithm, value: &str) -> Verifiability {
        Verifiability::FullObject(Expected::Crc(Checksum::from_base64(algorithm, value).unwrap()))
    }

    #[test]
    fn the_catalogue_s_check_values_come_out() {
        for (algorithm, value, base64) in CHECK {
            assert_eq!(of(algorithm, b"123456789"), RangeChecksum::new(algorithm, value, 9));
            assert_eq!(Checksum::from_base64(algorithm, base64), Some(Checksum { algorithm, value }));
        }
    }

    #[test]
    fn equal_checksums_verify_and_one_wrong_byte_does_not() {
        for (algorithm, _, base64) in CHECK {
            let stored = Checksum::from_base64(algorithm, base64).unwrap();
            assert_eq!(stored.check(of(algorithm, b"123456789").checksum()), Ok(()));
            assert!(stored.check(of(algorithm, b"123456788").checksum()).is_err());
        }
    }

    #[test]
    fn a_mismatch_tells_both_values() {
        let mismatch = |algorithm| {
            let (expected, actual) = (of(algorithm, b"123456789").checksum(), of(algorithm, b"").checksum());
            expected.check(actual).unwrap_err().to_string()
        };
        insta::assert_snapshot!(ALL.map(mismatch).join("\n"), @"
            the bytes received have the checksum crc64nvme 0000000000000000, the store keeps crc64nvme ae8b14860a799888
            the bytes received have the checksum crc32c 00000000, the store keeps crc32c e3069283
            the bytes received have the checksum crc32 00000000, the store keeps crc32 cbf43926
            ");
    }

    #[test]
    fn values_of_two_algorithms_are_never_equal() {
        let crc32 = of(Algorithm::Crc32, b"").checksum();
        assert!(of(Algorithm::Crc32c, b"").checksum().check(crc32).is_err());
    }

    #[test]
    fn the_strongest_full_checksum_is_chosen() {
        let all = StoredChecksums {
            crc64nvme: Some("rosUhgp5mIg="),
            crc32c: Some("4waSgw=="),
            crc32: Some("y/Q5Jg=="),
            sha256: Some("anything"),
            sha1: None,
            checksum_type: Some("FULL_OBJECT"),
        };
        assert_eq!(all.verifiability(), full(Algorithm::Crc64Nvme, "rosUhgp5mIg="));
        let older = StoredChecksums { crc64nvme: None, checksum_type: None, ..all };
        assert_eq!(older.verifiability(), full(Algorithm::Crc32c, "4waSgw=="));
        let oldest = StoredChecksums { crc32c: None, ..older };
        assert_eq!(oldest.verifiability(), full(Algorithm::Crc32, "y/Q5Jg=="));
    }

    #[test]
    fn a_checksum_of_checksums_is_not_of_the_object() {
        let suffix = StoredChecksums { crc32: Some("y/Q5Jg==-3"), ..StoredChecksums::default() };
        assert_eq!(suffix.verifiability(), Verifiability::Composite);
        let kind = StoredChecksums { crc32: Some("y/Q5Jg=="), checksum_type: Some("COMPOSITE"), ..suffix };
        assert_eq!(kind.verifiability(), Verifiability::Composite);
        let neither = StoredChecksums { crc32: Some("y/Q5Jg=="), ..StoredChecksums::default() };
        assert_eq!(neither.verifiability(), full(Algorithm::Crc32, "y/Q5Jg=="));
    }

    #[test]
    fn a_composite_checksum_beside_a_full_one_does_not_hide_it() {
        let both =
            StoredChecksums { crc64nvme: Some("y/Q5Jg==-3"), crc32: Some("y/Q5Jg=="), ..StoredChecksums::default() };
        assert_eq!(both.verifiability(), full(Algorithm::Crc32, "y/Q5Jg=="));
    }

    #[test]
    fn what_cannot_be_checked_tells_why() {
        let none = StoredChecksums::default();
        assert_eq!(none.verifiability(), Verifiability::Absent);
        let sha1 = StoredChecksums { sha1: Some("qZk+NkcGgWq6PiVxeFDCbJzQ2J0="), ..none };
        assert!(matches!(sha1.verifiability(), Verifiability::FullObject(Expected::Hash(_))));
        let broken = StoredChecksums { sha1: Some("x"), ..none };
        assert_eq!(broken.verifiability(), Verifiability::Malformed("sha1".to_owned()));
        let broken = StoredChecksums { crc32c: Some("4waS"), sha1: Some("x"), ..none };
        assert_eq!(broken.verifiability(), Verifiability::Malformed("crc32c".to_owned()));
    }

    #[test]
    fn base64_of_another_length_or_alphabet_is_no_checksum() {
        for value in [
            "",
            "=",
            "====",
            "y/Q5Jg",
            "y/Q5Jg=",
            "y_Q5Jg==",
            "y/Q5Jh==",
            "y/Q5JgA=",
            "rosUhgp5mIg=",
            "y/Q5Jg==\n",
            "ÄÄ",
        ] {
            assert_eq!(Checksum::from_base64(Algorithm::Crc32, value), None, "{value}");
        }
    }

    #[test]
    fn no_range_at_all_is_an_empty_object() {
        for algorithm in ALL {
            assert_eq!(combine(algorithm, []), Some(of(algorithm, b"")));
            assert_eq!(of(algorithm, b"").checksum().value(), 0);
        }
    }

    #[test]
    fn ranges_of_two_algorithms_or_endless_ones_do_not_combine() {
        let one = of(Algorithm::Crc32, b"1");
        assert!(combine(Algorithm::Crc32, [one, one]).is_some());
        assert_eq!(combine(Algorithm::Crc32, [one, of(Algorithm::Crc32c, b"1")]), None);
        assert_eq!(combine(Algorithm::Crc32, [RangeChecksum::new(Algorithm::Crc32, 1, u64::MAX), one]), None);
    }

    #[test]
    fn the_order_of_the_ranges_matters() {
        for algorithm in ALL {
            let (left, right) = (of(algorithm, b"12345"), of(algorithm, b"6789"));
            assert_eq!(combine(algorithm, [left, right]), Some(of(algorithm, b"123456789")));
            assert_ne!(combine(algorithm, [right, left]), Some(of(algorithm, b"123456789")));
        }
    }

    #[test]
    fn ranges_beyond_4_gib_combine() {
        // Zeros after a CRC, so that the expected value can be had by doubling: crc(x + 2^n zeros) from its halves.
        for algorithm in ALL {
            let mib = of(algorithm, &vec![0; 1 << 20]);
            let gib_8 = (0..13).fold(mib, |half, _| combine(algorithm, [half, half]).unwrap());
            assert_eq!(gib_8.len_bytes(), 8 << 30);
            let by_one = combine(algorithm, std::iter::repeat_n(mib, 8 << 10)).unwrap();
            assert_eq!(gib_8, by_one);
        }
    }

    proptest! {
        #[test]
        fn any_split_combines_to_the_whole(
            bytes in proptest::collection::vec(any::<u8>(), 0..4096),
            cuts in proptest::collection::vec(any::<proptest::sample::Index>(), 0..8),
        ) {
            let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
            cuts.extend([0, bytes.len()]);
            cuts.sort_unstable();
            for algorithm in ALL {
                let ranges = cuts.windows(2).map(|cut| of(algorithm, &bytes[cut[0]..cut[1]]));
                prop_assert_eq!(combine(algorithm, ranges), Some(of(algorithm, &bytes)));
            }
        }

        #[test]
        fn ranges_of_any_length_combine_as_crc_fast_combines_them(
            left: u64, right: u64, left_len in 1..u64::MAX / 2, right_len in 1..u64::MAX / 2,
        ) {
            for algorithm in ALL {
                let mask = u64::MAX >> (64 - algorithm.value_bytes() * 8);
                let (left, right) = (left & mask, right & mask);
                let ranges = [(left, left_len), (right, right_len)];
                let ranges = ranges.map(|(value, len)| RangeChecksum::new(algorithm, value, len));
                let expected = crc_fast::checksum_combine(algorithm.engine(), left, right, right_len);
                let combined = combine(algorithm, ranges);
                prop_assert_eq!(combined, Some(RangeChecksum::new(algorithm, expected, left_len + right_len)));
            }
        }

        #[test]
        fn the_digest_does_not_see_how_the_bytes_were_sliced(
            bytes in proptest::collection::vec(any::<u8>(), 0..4096), slice in 1_usize..700,
        ) {
            for algorithm in ALL {
                let mut running = Running::new(algorithm);
                bytes.chunks(slice).for_each(|chunk| running.update(chunk));
                prop_assert_eq!(running.finish(), of(algorithm, &bytes));
            }
        }

        #[test]
        fn no_header_panics(value in ".{0,20}|[A-Za-z0-9+/]{0,12}={0,4}") {
            for algorithm in ALL {
                let _ = Checksum::from_base64(algorithm, &value);
            }
        }
    }
}
