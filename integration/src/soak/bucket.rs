//! The bucket of an episode, and every version that it has had.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use super::chance::Chance;
use crate::s3_server::{Checksum, Object, Store};
use crate::tree::{Entry, Tree};

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;

/// Around the borders of what the product does in another way: nothing, one write, one extent, one request.
const BORDERS: [u64; 4] = [0, 256 * KIB, 4 * MIB, 32 * MIB];

/// An object of this size or less is one request.
pub(super) const ONE_REQUEST_BYTES: u64 = 32 * MIB;

/// The bucket's objects by their paths below the prefix, each with its versions, the newest last.
#[derive(Debug, Clone, Default)]
pub(super) struct Bucket(Arc<Mutex<BTreeMap<String, Versions>>>);

#[derive(Debug, Default)]
struct Versions {
    /// Length and SHA-256.
    contents: Vec<(u64, String)>,
    kind: Kind,
    is_there: bool,
    /// How many versions there were when the run under way began.
    before_run: usize,
}

/// How the objects of one key are uploaded.
#[derive(Debug, Default, Clone, Copy)]
struct Kind {
    checksum: Option<Checksum>,
    part_bytes: Option<u64>,
    is_composite: bool,
}

impl Bucket {
    /// Puts a new version of the object at `path`.
    pub(super) fn put(&self, store: &Store, path: &str, size_bytes: u64, seed: u64) {
        let kind = self.lock().get(path).map(|versions| versions.kind).unwrap_or_default();
        // Of two uploads in the same second nothing but the ETag tells which it is.
        let mut object = Object::pattern(seed, size_bytes).modified(1_700_000_000);
        if let Some(checksum) = kind.checksum {
            object = object.checksum(checksum);
        }
        if let Some(part_bytes) = kind.part_bytes {
            object = object.multipart(part_bytes);
        }
        if kind.is_composite {
            object = object.composite();
        }
        let content = (size_bytes, object.data().sha256_hex());
        // Noted first: from the moment on that the server has it, it may be on the volume.
        let mut versions = self.lock();
        let versions = versions.entry(path.to_owned()).or_default();
        versions.contents.push(content);
        versions.is_there = true;
        store.put("models", &format!("m/{path}"), object);
    }

    /// Puts an object at a path where there was none.
    pub(super) fn put_new(&self, store: &Store, path: &str, size_bytes: u64, chance: &mut Chance) {
        let checksums = [Checksum::Crc64Nvme, Checksum::Crc32, Checksum::Crc32c, Checksum::Sha256];
        let kind = Kind {
            checksum: chance.hits(75).then(|| chance.one_of(&checksums)),
            part_bytes: chance.hits(30).then(|| 5 * MIB + chance.below(11 * MIB)),
            is_composite: chance.hits(50),
        };
        self.lock().insert(path.to_owned(), Versions { kind, ..Versions::default() });
        self.put(store, path, size_bytes, chance.number());
    }

    pub(super) fn remove(&self, store: &Store, path: &str) {
        if let Some(versions) = self.lock().get_mut(path) {
            versions.is_there = false;
        }
        store.remove("models", &format!("m/{path}"));
    }

    /// What is in the bucket: paths and sizes.
    pub(super) fn objects(&self) -> Vec<(String, u64)> {
        let versions = self.lock();
        let there = versions.iter().filter(|(_, versions)| versions.is_there);
        there.map(|(path, versions)| (path.clone(), versions.size_bytes())).collect()
    }

    /// Whether the store can tell wrong bytes of this object from right ones.
    pub(super) fn is_verifiable(&self, path: &str) -> bool {
        self.lock().get(path).is_some_and(|versions| versions.kind.checksum.is_some())
    }

    /// The sizes of all versions there ever were.
    pub(super) fn bytes_ever(&self) -> u64 {
        self.lock().values().flat_map(|versions| &versions.contents).map(|(size_bytes, _)| size_bytes).sum()
    }

    /// A run begins: from here on it may see what is in the bucket now, and what comes while it runs.
    pub(super) fn run_begins(&self) {
        for versions in self.lock().values_mut() {
            versions.before_run = versions.contents.len();
        }
    }

    /// Every file with a final name is a version that the bucket has had; else, which is not.
    pub(super) fn check_visible(&self, tree: &Tree) -> Result<(), String> {
        let versions = self.lock();
        for (path, (len, sha256)) in tree.files() {
            if path.starts_with(".storage-initializer/") {
                continue;
            }
            let is_version = versions.get(path).is_some_and(|versions| {
                versions.contents.iter().any(|version| (version.0, version.1.as_str()) == (len, sha256))
            });
            if !is_version {
                return Err(format!("{path} of {len} bytes is no version that the bucket has had"));
            }
        }
        Ok(())
    }

    /// The model is complete, and nothing else of ours is there; else, what is wrong.
    pub(super) fn check_complete(&self, tree: &Tree) -> Result<(), String> {
        let files = tree.files();
        for (path, versions) in self.lock().iter().filter(|(_, versions)| versions.is_there) {
            let Some(found) = files.get(path.as_str()) else { return Err(format!("{path} is missing")) };
            let current = versions.contents.iter().skip(versions.before_run.max(1) - 1);
            if !current.into_iter().any(|version| (version.0, version.1.as_str()) == *found) {
                return Err(format!("{path} is not of the version that the bucket has now"));
            }
        }
        let ours = tree.entries().keys().find(|path| path.starts_with('.'));
        if let Some(path) = ours {
            return Err(format!("{path} is left behind"));
        }
        match tree.entries().iter().find(|(_, entry)| matches!(entry, Entry::Symlink(_) | Entry::Other)) {
            Some((path, entry)) => Err(format!("{path} is a {entry}")),
            None => Ok(()),
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Versions>> {
        self.0.lock().unwrap_or_else(|poison| poison.into_inner())
    }
}

impl Versions {
    fn size_bytes(&self) -> u64 {
        self.contents.last().map_or(0, |(size_bytes, _)| *size_bytes)
    }
}

/// A size on one side or the other of a border, or one that takes several connections.
pub(super) fn size(chance: &mut Chance) -> u64 {
    match chance.below(12) {
        0..=6 => {
            let border = chance.one_of(&BORDERS[..3]);
            (border + chance.below(3)).saturating_sub(1)
        }
        7 | 8 => chance.below(2 * MIB),
        9 => BORDERS[3] + chance.below(3) - 1,
        _ => large_size(chance),
    }
}

pub(super) fn large_size(chance: &mut Chance) -> u64 {
    40 * MIB + chance.below(30 * MIB)
}
