//! How much may be under way at once, by what the container has.

use crate::{cgroup, units::MIB};

/// What one connection may hold: two write buffers, HTTP's and TLS' own, and its share of the
/// kernel's socket buffers, which are charged to the container too.
const CONNECTION_BYTES: u64 = 2 * MIB;

/// What the program needs before the first connection.
const BASE_BYTES: u64 = 16 * MIB;

/// What is under way at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Concurrency {
    /// Requests at a time.
    pub(super) connections: usize,
    /// Objects at a time; small ones mostly wait for the store, so more of them than connections.
    pub(super) objects: usize,
}

impl Concurrency {
    /// 4 connections per core, from 8 to 64, as many as half of the memory allows, and at least 2: below that one slow
    /// connection stops everything. One S3 stream gives about 90 MB/s, so this is more than a core can decrypt; more
    /// connections only cost memory (16 on two cores: 39 MiB instead of 25) and processor time.
    pub(super) fn for_limits(limits: &cgroup::Limits, max_objects: Option<usize>) -> Self {
        let by_cores = ((limits.cpus * 4.0).ceil() as usize).clamp(8, 64);
        let by_memory = limits.memory().map_or(usize::MAX, |bytes| {
            usize::try_from((bytes / 2).saturating_sub(BASE_BYTES) / CONNECTION_BYTES).unwrap_or(usize::MAX)
        });
        let connections = by_cores.min(by_memory).max(2);
        let objects = max_objects.unwrap_or(connections * 4);
        Self { connections, objects }
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
        let connections = |cpus, memory| Concurrency::for_limits(&limits(cpus, memory), None).connections;
        assert_eq!(connections(1.0, None), 8);
        assert_eq!(connections(4.0, None), 16);
        assert_eq!(connections(64.0, None), 64);
        assert_eq!(connections(2.0, Some(48 * MIB)), 4);
        assert_eq!(connections(2.0, Some(MIB)), 2);
    }

    #[test]
    fn the_setting_bounds_the_objects_and_not_the_connections() {
        let concurrency = Concurrency::for_limits(&limits(2.0, None), Some(1));
        assert_eq!(concurrency, Concurrency { connections: 8, objects: 1 });
    }
}
