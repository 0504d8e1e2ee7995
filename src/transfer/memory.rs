//! How much may be under way at once, by what the container has.

use crate::{cgroup, units::MIB};

/// What one connection may hold: the buffer that is written from, TLS' and HTTP's own, and its share of the kernel's
/// socket buffers, which are charged to the container too.
const CONNECTION_BYTES: u64 = 2 * MIB;

/// What the program needs before the first connection.
const BASE_BYTES: u64 = 16 * MIB;

/// What is under way at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Concurrency {
    /// Requests at a time, to begin with.
    pub(super) few: usize,
    /// Requests at a time, where the store is so far away that this many make it faster.
    pub(super) most: usize,
    /// Objects at a time.
    pub(super) objects: usize,
}

impl Concurrency {
    /// To begin with 2 connections per core, because that is what a near store needs to fill the cores; at most 8 per
    /// core, from 16 to 64, as many as half of the memory allows, and at least 2: below that one slow connection stops
    /// everything. One S3 stream gives about 90 MB/s, so the most is more than a core can decrypt.
    pub(super) fn for_limits(limits: &cgroup::Limits, max_objects: Option<usize>) -> Self {
        let per_core = |connections: f64| (limits.cpus * connections).ceil() as usize;
        let by_memory = limits.memory().map_or(usize::MAX, |bytes| {
            usize::try_from((bytes / 2).saturating_sub(BASE_BYTES) / CONNECTION_BYTES).unwrap_or(usize::MAX)
        });
        let most = per_core(8.0).clamp(16, 64).min(by_memory).max(2);
        let few = per_core(2.0).max(4).min(most);
        Self { few, most, objects: max_objects.unwrap_or(usize::MAX) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(cpus: f64, memory: Option<u64>) -> cgroup::Limits {
        cgroup::Limits { cpus, memory_limit: memory, memory_available: None }
    }

    #[test]
    fn connections_grow_with_the_cores_and_shrink_with_the_memory() {
        let connections = |cpus, memory| {
            let concurrency = Concurrency::for_limits(&limits(cpus, memory), None);
            (concurrency.few, concurrency.most)
        };
        assert_eq!(connections(1.0, None), (4, 16));
        assert_eq!(connections(4.0, None), (8, 32));
        assert_eq!(connections(64.0, None), (64, 64));
        assert_eq!(connections(2.0, Some(64 * MIB)), (4, 8));
        assert_eq!(connections(2.0, Some(MIB)), (2, 2));
    }

    #[test]
    fn the_setting_bounds_the_objects_and_not_the_connections() {
        let concurrency = Concurrency::for_limits(&limits(2.0, None), Some(1));
        assert_eq!(concurrency, Concurrency { few: 4, most: 16, objects: 1 });
    }
}
