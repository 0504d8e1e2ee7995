//! Hashes of whole stretches of bytes: they cannot be combined from ranges, so what is on the volume is read once more.

use std::fmt;

use aws_lc_rs::digest::{Context, SHA1_FOR_LEGACY_USE_ONLY, SHA256};
use md5::{Digest as _, Md5};
use thiserror::Error;

use super::decode_base64;

/// A hash that a store keeps, or that somebody has pinned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum HashAlgorithm {
    /// FIPS 180-4.
    Sha256,
    /// FIPS 180-4; good against accidents, which is what it is kept for here.
    Sha1,
    /// RFC 1321: the ETag of an object that was uploaded in one part and is not encrypted with a KMS key.
    Md5,
}

impl HashAlgorithm {
    fn value_bytes(self) -> usize {
        match self {
            Self::Sha256 => 32,
            Self::Sha1 => 20,
            Self::Md5 => 16,
        }
    }
}

/// As reports write it: `sha256`, `sha1`, `etag-md5`.
impl fmt::Display for HashAlgorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Sha256 => "sha256",
            Self::Sha1 => "sha1",
            Self::Md5 => "etag-md5",
        })
    }
}

/// A value of one algorithm. Prints as `sha256 9f86d0...`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hash {
    algorithm: HashAlgorithm,
    value: Box<[u8]>,
}

impl Hash {
    /// A header's value: base64. `None` where it is not, or has another length.
    pub fn from_base64(algorithm: HashAlgorithm, value: &str) -> Option<Self> {
        let value = decode_base64(value)?;
        (value.len() == algorithm.value_bytes()).then(|| Self { algorithm, value: value.into() })
    }

    /// Hexadecimal digits, as an ETag and `sha256sum` have them. `None` where it is not, or has another length.
    pub fn from_hex(algorithm: HashAlgorithm, digits: &str) -> Option<Self> {
        if digits.len() != algorithm.value_bytes() * 2 || !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return None;
        }
        let byte = |at| u8::from_str_radix(digits.get(at..at + 2)?, 16).ok();
        let value = (0..digits.len()).step_by(2).map(byte).collect::<Option<_>>()?;
        Some(Self { algorithm, value })
    }

    /// The algorithm.
    pub fn algorithm(&self) -> HashAlgorithm {
        self.algorithm
    }

    /// The value in hexadecimal digits.
    pub fn hex(&self) -> String {
        self.value.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Compares what is expected, `self`, with what is there.
    ///
    /// # Errors
    ///
    /// Both values where they differ.
    pub fn check(&self, actual: Self) -> Result<(), HashMismatch> {
        if *self == actual { Ok(()) } else { Err(HashMismatch { expected: self.clone(), actual }) }
    }
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.algorithm, self.hex())
    }
}

/// The bytes that are there are not the bytes that were meant.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("the bytes received have {actual}, expected is {expected}")]
pub struct HashMismatch {
    /// What was expected.
    pub expected: Hash,
    /// What was computed.
    pub actual: Hash,
}

/// A hash in the making.
pub enum Hasher {
    /// SHA-1 or SHA-256.
    Sha(HashAlgorithm, Context),
    /// MD5.
    Md5(Md5),
}

impl Hasher {
    /// The hash of no bytes yet.
    pub fn new(algorithm: HashAlgorithm) -> Self {
        match algorithm {
            HashAlgorithm::Sha256 => Self::Sha(algorithm, Context::new(&SHA256)),
            HashAlgorithm::Sha1 => Self::Sha(algorithm, Context::new(&SHA1_FOR_LEGACY_USE_ONLY)),
            HashAlgorithm::Md5 => Self::Md5(Md5::new()),
        }
    }

    /// Takes the next bytes, in order.
    pub fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Sha(_, context) => context.update(bytes),
            Self::Md5(md5) => md5.update(bytes),
        }
    }

    /// The hash of all bytes.
    pub fn finish(self) -> Hash {
        match self {
            Self::Sha(algorithm, context) => Hash { algorithm, value: context.finish().as_ref().into() },
            Self::Md5(md5) => Hash { algorithm: HashAlgorithm::Md5, value: md5.finalize().as_slice().into() },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(algorithm: HashAlgorithm, bytes: &[u8]) -> Hash {
        let mut hasher = Hasher::new(algorithm);
        hasher.update(bytes);
        hasher.finish()
    }

    #[test]
    fn the_hashes_are_those_of_the_standards() {
        let abc =
            [HashAlgorithm::Sha256, HashAlgorithm::Sha1, HashAlgorithm::Md5].map(|algorithm| of(algorithm, b"abc"));
        insta::assert_snapshot!(abc.map(|hash| hash.to_string()).join("\n"), @r"
        sha256 ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad
        sha1 a9993e364706816aba3e25717850c26c9cd0d89d
        etag-md5 900150983cd24fb0d6963f7d28e17f72
        ");
    }

    #[test]
    fn a_hash_is_read_from_hex_and_base64_of_its_own_length_alone() {
        let abc = of(HashAlgorithm::Sha1, b"abc");
        assert_eq!(Hash::from_hex(HashAlgorithm::Sha1, &abc.hex().to_uppercase()), Some(abc.clone()));
        assert_eq!(Hash::from_base64(HashAlgorithm::Sha1, "qZk+NkcGgWq6PiVxeFDCbJzQ2J0="), Some(abc.clone()));
        assert_eq!(Hash::from_hex(HashAlgorithm::Sha256, &abc.hex()), None);
        assert_eq!(Hash::from_base64(HashAlgorithm::Sha256, "qZk+NkcGgWq6PiVxeFDCbJzQ2J0="), None);
        assert_eq!(Hash::from_hex(HashAlgorithm::Md5, "+00150983cd24fb0d6963f7d28e17f72"), None);
    }

    #[test]
    fn only_equal_hashes_pass() {
        let abc = of(HashAlgorithm::Sha256, b"abc");
        abc.check(abc.clone()).unwrap();
        assert!(abc.check(of(HashAlgorithm::Sha256, b"abd")).is_err());
        assert!(abc.check(of(HashAlgorithm::Md5, b"abc")).is_err());
    }
}
