//! The journal of a large object: which extents of its partial are whole.
//!
//! Text, a line each, so that a person can read it:
//!
//! ```text
//! {"bucket":...,"checksum":...,"endpoint":...,"etag":...,"format":1,...}
//! boot 5f1c...
//! 0 4194304 ae8b14860a799888 1b2c3d4e
//! ```
//!
//! The first line says which state of which object the partial is of, and with which checksum; where a byte of it
//! differs from what is wanted now, nothing below it counts. The second names the machine's boot: of another boot's
//! extents nobody knows whether they reached the disk, so their bytes are read and compared first. Then an extent per
//! line: offset, length, checksum, and a CRC32 of the line up to there. A line that is torn, and everything after it, is
//! not there.

use crate::checksum::{Algorithm, RangeChecksum, Running};

/// What an earlier run has noted.
#[derive(Debug, PartialEq, Eq)]
pub struct Replay {
    /// The boot of the machine that the last run saw.
    pub boot_id: String,
    /// The extents by their offsets, as noted: not yet compared with the object's size.
    pub extents: Vec<(u64, RangeChecksum)>,
}

/// How a journal begins: its first two lines.
pub fn beginning(identity: &str, boot_id: &str) -> String {
    format!("{identity}\nboot {boot_id}\n")
}

/// The line of one extent.
pub fn record(offset_bytes: u64, checksum: RangeChecksum) -> String {
    let text = format!("{offset_bytes} {} {:016x}", checksum.len_bytes(), checksum.checksum().value());
    format!("{text} {:08x}\n", crc32(&text))
}

/// Reads a journal that should be of `identity`. `None` where it is not, or is none at all.
pub fn replay(bytes: &[u8], identity: &str, algorithm: Algorithm) -> Option<Replay> {
    // A torn line may end within a character.
    let text = match std::str::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => std::str::from_utf8(bytes.get(..error.valid_up_to())?).ok()?,
    };
    let rest = text.strip_prefix(identity)?.strip_prefix("\nboot ")?;
    let (boot_id, records) = rest.split_once('\n')?;
    let whole_lines = records.split_inclusive('\n').map_while(|line| line.strip_suffix('\n'));
    let extents = whole_lines.map_while(|line| extent(line, algorithm)).collect();
    Some(Replay { boot_id: boot_id.to_owned(), extents })
}

fn extent(line: &str, algorithm: Algorithm) -> Option<(u64, RangeChecksum)> {
    let (text, check) = line.rsplit_once(' ')?;
    if check.len() != 8 || u32::from_str_radix(check, 16) != Ok(crc32(text)) {
        return None;
    }
    let mut fields = text.split(' ');
    let (offset, length, value) = (fields.next()?, fields.next()?, fields.next()?);
    let checksum = RangeChecksum::new(algorithm, u64::from_str_radix(value, 16).ok()?, length.parse().ok()?);
    fields.next().is_none().then_some((offset.parse().ok()?, checksum))
}

fn crc32(text: &str) -> u32 {
    let mut running = Running::new(Algorithm::Crc32);
    running.update(text.as_bytes());
    running.finish().checksum().value() as u32
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const IDENTITY: &str = r#"{"format":1,"key":"m/weights"}"#;

    fn journal(extents: &[(u64, RangeChecksum)]) -> String {
        let records: String = extents.iter().map(|(offset, checksum)| record(*offset, *checksum)).collect();
        beginning(IDENTITY, "boot-1") + &records
    }

    fn read(bytes: &[u8]) -> Option<Vec<(u64, RangeChecksum)>> {
        let replay = replay(bytes, IDENTITY, Algorithm::Crc64Nvme)?;
        assert_eq!(replay.boot_id, "boot-1");
        Some(replay.extents)
    }

    fn extents() -> impl Strategy<Value = Vec<(u64, RangeChecksum)>> {
        let extent = any::<(u64, u64, u64)>()
            .prop_map(|(offset, value, length)| (offset, RangeChecksum::new(Algorithm::Crc64Nvme, value, length)));
        proptest::collection::vec(extent, 0..6)
    }

    #[test]
    fn a_journal_of_another_state_of_the_object_is_none() {
        let text = journal(&[]);
        assert_eq!(read(text.as_bytes()), Some(Vec::new()));
        let other = text.replace("m/weights", "m/weightt");
        assert_eq!(read(other.as_bytes()), None);
        assert_eq!(read(b""), None);
        assert_eq!(read(IDENTITY.as_bytes()), None);
    }

    #[test]
    fn a_record_reads_as_the_documentation_has_it() {
        let line = record(0, RangeChecksum::new(Algorithm::Crc64Nvme, 0xae8b_1486_0a79_9888, 4_194_304));
        insta::assert_snapshot!(line, @"0 4194304 ae8b14860a799888 997322fc");
    }

    proptest! {
        #[test]
        fn what_was_written_is_read_again(extents in extents()) {
            prop_assert_eq!(read(journal(&extents).as_bytes()), Some(extents));
        }

        #[test]
        fn a_torn_journal_is_read_up_to_the_tear(extents in extents(), cut in any::<prop::sample::Index>()) {
            let text = journal(&extents);
            let cut = cut.index(text.len() + 1);
            if let Some(found) = read(&text.as_bytes()[..cut]) {
                prop_assert_eq!(&found[..], &extents[..found.len()]);
                prop_assert!(found.len() + 1 >= text[..cut].matches('\n').count() - 1);
            } else {
                prop_assert!(cut < beginning(IDENTITY, "boot-1").len());
            }
        }

        #[test]
        fn a_flipped_bit_ends_the_journal_there(extents in extents(), at in any::<prop::sample::Index>(), bit in 0..8_u8) {
            let mut bytes = journal(&extents).into_bytes();
            let begin = beginning(IDENTITY, "boot-1").len();
            if bytes.len() > begin {
                let at = begin + at.index(bytes.len() - begin);
                bytes[at] ^= 1 << bit;
                let found = read(&bytes).unwrap();
                prop_assert!(found.len() < extents.len() || found == extents);
                prop_assert_eq!(&found[..], &extents[..found.len()]);
            }
        }

        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = replay(&bytes, "", Algorithm::Crc32);
        }
    }
}
