//! Feeds the reader of journals anything, behind the beginning that it looks for or without it: it must end, and what it
//! believes must be what a writer of journals could have written.

#![no_main]

use libfuzzer_sys::fuzz_target;
use storage_initializer::{
    checksum::Algorithm,
    transfer::journal::{Replay, beginning, record, replay},
};

const IDENTITY: &str = r#"{"format":1,"key":"m/weights"}"#;

fuzz_target!(|bytes: &[u8]| {
    let Some((choice, bytes)) = bytes.split_first() else { return };
    let algorithm = [Algorithm::Crc64Nvme, Algorithm::Crc32c, Algorithm::Crc32][usize::from(choice & 3) % 3];
    let text = if choice & 4 == 0 { [beginning(IDENTITY, "boot").as_bytes(), bytes].concat() } else { bytes.to_vec() };
    let Some(found) = replay(&text, IDENTITY, algorithm) else {
        assert!(choice & 4 != 0, "a beginning is not read again");
        return;
    };
    assert!(text.starts_with(IDENTITY.as_bytes()), "a journal of something else is believed");
    // Each record has at least eight digits and three blanks.
    assert!(found.extents.len() <= text.len() / 12);
    assert_eq!(written_again(&found, algorithm), found);
    // A torn journal says less, and nothing else.
    let torn = replay(&text[..text.len() - 1], IDENTITY, algorithm);
    if let Some(torn) = torn {
        assert!(found.extents.starts_with(&torn.extents));
    }
});

fn written_again(found: &Replay, algorithm: Algorithm) -> Replay {
    let records: String = found.extents.iter().map(|(offset, checksum)| record(*offset, *checksum)).collect();
    let text = beginning(IDENTITY, &found.boot_id) + &records;
    replay(text.as_bytes(), IDENTITY, algorithm).expect("what was written is read")
}
