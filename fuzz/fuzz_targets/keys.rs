//! Feeds the way from keys to files anything: no key leaves the destination, and no two files of an accepted plan are in
//! each other's way. The first piece of the input is the prefix, the others are keys; the byte 0xFF is between them.

#![no_main]

use std::path::{Component, Path};

use libfuzzer_sys::fuzz_target;
use storage_initializer::destination::{
    MAX_PATH_BYTES, MAX_SEGMENT_BYTES, Mapped, RESERVED, RelativePath, Root, check_collisions, relative_path,
};

/// Enough for every way in which two of them can meet.
const MAX_KEYS: usize = 32;

fuzz_target!(|bytes: &[u8]| {
    let mut pieces = bytes.split(|byte| *byte == 0xff).map(String::from_utf8_lossy);
    let prefix = Root::Prefix(pieces.next().unwrap_or_default().into_owned());
    let keys: Vec<_> = pieces.take(MAX_KEYS).collect();
    for root in [prefix, Root::Object] {
        let mut files = Vec::new();
        for key in &keys {
            match relative_path(key, &root) {
                Ok(Mapped::File(path)) => {
                    assert_inside(&path);
                    files.push((&**key, path));
                }
                Ok(Mapped::Marker) => assert!(key.ends_with('/')),
                // A message is one line, whatever is in the key.
                Err(refused) => assert!(!refused.to_string().contains('\n')),
            }
        }
        let is_refused = check_collisions(files.iter().map(|(key, path)| (*key, path))).is_err();
        assert_eq!(is_refused, any_two_meet(&files), "{files:?}");
    }
});

fn assert_inside(path: &RelativePath) {
    let joined = path.join_to(Path::new("/models"));
    let below = joined.strip_prefix("/models").expect("below the destination");
    assert!(below.components().all(|component| matches!(component, Component::Normal(_))), "{path:?}");
    assert_eq!(below.components().count(), path.segments().count(), "{path:?}");
    assert!(path.segments().all(|segment| (1..=MAX_SEGMENT_BYTES).contains(&segment.len())), "{path:?}");
    assert!(path.as_str().len() <= MAX_PATH_BYTES && !path.as_str().contains('\0'), "{path:?}");
    assert_ne!(path.segments().next(), Some(RESERVED));
    assert_eq!(RelativePath::parse(path.as_str()).as_ref(), Ok(path), "a path is its own");
}

/// The same question, asked of every pair.
fn any_two_meet(files: &[(&str, RelativePath)]) -> bool {
    files.iter().enumerate().any(|(index, (_, one))| {
        files[index + 1..].iter().any(|(_, other)| {
            let (one, other) = (Path::new(one.as_str()), Path::new(other.as_str()));
            one.starts_with(other) || other.starts_with(one)
        })
    })
}
