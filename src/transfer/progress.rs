//! How far the transfer is, counted where bytes arrive and read by whoever shows it.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Counters of one transfer. Bytes that are fetched again are taken back first, so `bytes` never
/// exceeds `total_bytes`.
#[derive(Debug, Default)]
pub struct Progress {
    total_bytes: AtomicU64,
    bytes: AtomicU64,
    total_files: AtomicU64,
    files: AtomicU64,
    retries: AtomicU64,
    received: AtomicU64,
}

/// The counters at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// Size of everything that is planned.
    pub total_bytes: u64,
    /// What has arrived of it.
    pub bytes: u64,
    /// How many files are planned.
    pub total_files: u64,
    /// How many have their final name.
    pub files: u64,
    /// How many requests had to be made again.
    pub retries: u64,
}

impl Progress {
    /// One more file of so many bytes.
    pub(super) fn planned(&self, bytes: u64) {
        self.total_files.fetch_add(1, Relaxed);
        self.total_bytes.fetch_add(bytes, Relaxed);
    }

    /// The counters now.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot {
            total_bytes: self.total_bytes.load(Relaxed),
            bytes: self.bytes.load(Relaxed),
            total_files: self.total_files.load(Relaxed),
            files: self.files.load(Relaxed),
            retries: self.retries.load(Relaxed),
        }
    }

    /// Bytes are on the volume, from whenever.
    pub(super) fn arrived(&self, bytes: u64) {
        self.bytes.fetch_add(bytes, Relaxed);
    }

    /// Bytes came over the network and are on the volume.
    pub(super) fn received(&self, bytes: u64) {
        self.received.fetch_add(bytes, Relaxed);
        self.arrived(bytes);
    }

    /// What came over the network, whether it was of use or not.
    pub(super) fn received_bytes(&self) -> u64 {
        self.received.load(Relaxed)
    }

    pub(super) fn taken_back(&self, bytes: u64) {
        self.bytes.fetch_sub(bytes, Relaxed);
    }

    /// An object turned out to have another size than planned.
    pub(super) fn resized(&self, from_bytes: u64, to_bytes: u64) {
        self.total_bytes.fetch_add(to_bytes, Relaxed);
        self.total_bytes.fetch_sub(from_bytes, Relaxed);
    }

    pub(super) fn finished_file(&self) {
        self.files.fetch_add(1, Relaxed);
    }

    pub(super) fn retried(&self) {
        self.retries.fetch_add(1, Relaxed);
    }
}

impl Snapshot {
    /// From 0 to 100; an empty plan is all there.
    pub fn percent(&self) -> u64 {
        if self.total_bytes == 0 { 100 } else { (u128::from(self.bytes) * 100 / u128::from(self.total_bytes)) as u64 }
    }
}
