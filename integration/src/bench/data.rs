//! Where the benchmark keeps what is used again, and the data file in it.

use std::{
    fs::{self, File},
    io::{BufWriter, Write as _},
    path::{Path, PathBuf},
};

use super::{cases::DATA_BYTES, variable};

/// `$XDG_CACHE_HOME/storage-initializer-bench`, made if it is not there.
pub(super) fn cache() -> PathBuf {
    let home = || variable("HOME").map(|home| PathBuf::from(home).join(".cache"));
    let base = variable("XDG_CACHE_HOME").map(PathBuf::from).or_else(home).expect("XDG_CACHE_HOME or HOME is set");
    let cache = base.join("storage-initializer-bench");
    fs::create_dir_all(&cache).unwrap_or_else(|error| panic!("make {}: {error}", cache.display()));
    cache
}

/// The data file: pseudo-random bytes, always the same, written once.
pub(super) fn data_file(cache: &Path) -> PathBuf {
    let path = cache.join("data-1.bin");
    if fs::metadata(&path).is_ok_and(|metadata| metadata.len() == DATA_BYTES) {
        return path;
    }
    eprintln!("bench: writing {} MiB of data to {}", DATA_BYTES >> 20, path.display());
    let partial = cache.join(format!("data-1.bin.{}", std::process::id()));
    let written = write(&partial).and_then(|()| fs::rename(&partial, &path));
    written.unwrap_or_else(|error| panic!("write {}: {error}", partial.display()));
    path
}

fn write(path: &Path) -> std::io::Result<()> {
    let file = File::create(path)?;
    let mut writer = BufWriter::with_capacity(1 << 20, file);
    for index in 0..DATA_BYTES / 8 {
        writer.write_all(&scrambled(index).to_le_bytes())?;
    }
    writer.into_inner()?.sync_all()
}

/// SplitMix64 (<https://prng.di.unimi.it/splitmix64.c>), by position.
fn scrambled(index: u64) -> u64 {
    let mut z = index.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
