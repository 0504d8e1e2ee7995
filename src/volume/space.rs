//! How much room there is, and of what kind.

use std::{
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use super::VolumeError;
use crate::{cgroup, units::ByteSize};

/// `statfs(2)`'s type of a tmpfs.
const TMPFS_MAGIC: rustix::fs::FsWord = 0x0102_1994;

/// How much a file system has room for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FreeSpace {
    /// The destination that was asked for.
    pub path: PathBuf,
    /// What there is; `None` where the file system cannot tell.
    pub available_bytes: Option<u64>,
    /// How much of that is held by what earlier runs have left, until it is continued or removed.
    pub(super) held_bytes: u64,
    /// The file system's identity: destinations that share one share its space.
    pub(super) device: u64,
    /// Where the files are memory (tmpfs, an emptyDir with `medium: Memory`) and the container's is limited: that limit.
    pub(super) memory_limit: Option<u64>,
}

impl FreeSpace {
    pub(super) fn at(path: &Path) -> io::Result<Self> {
        let statistics = rustix::fs::statvfs(path)?;
        let available = statistics.f_bavail.saturating_mul(statistics.f_frsize);
        let is_memory = rustix::fs::statfs(path)?.f_type == TMPFS_MAGIC;
        Ok(Self {
            path: path.to_owned(),
            // A file system that cannot tell says zero blocks in all.
            available_bytes: (statistics.f_blocks > 0).then_some(available),
            held_bytes: 0,
            device: fs::metadata(path)?.dev(),
            memory_limit: if is_memory { cgroup::Limits::read().memory_limit } else { None },
        })
    }

    /// Whether so many bytes fit only where something of earlier runs is now.
    pub fn is_short_of(&self, bytes: u64) -> bool {
        self.available_bytes.is_some_and(|available| bytes > available.saturating_sub(self.held_bytes))
    }

    /// Checks that what each destination needs fits, all destinations of one file system together.
    ///
    /// # Errors
    ///
    /// [`VolumeError::TooSmall`] or [`VolumeError::TooLittleMemory`] with both numbers where it does not.
    pub fn check(needs: &[(Self, u64)]) -> Result<(), VolumeError> {
        for (space, _) in needs {
            let together = |is_shared: &dyn Fn(&Self) -> bool| -> u64 {
                needs.iter().filter(|(other, _)| is_shared(other)).map(|(_, bytes)| bytes).sum()
            };
            let needed = together(&|other| other.device == space.device);
            // What earlier runs have left for the others is continued, or removed, as well.
            let others = needs.iter().filter(|(other, _)| other.device == space.device && other.path != space.path);
            let held_by_others: u64 = others.map(|(other, _)| other.held_bytes).sum();
            if let Some(available) = space.available_bytes.map(|available| available.saturating_add(held_by_others))
                && needed > available
            {
                let (needed, available) = (ByteSize(needed), ByteSize(available));
                return Err(VolumeError::TooSmall { path: space.path.clone(), needed, available });
            }
            let in_memory = together(&|other| other.memory_limit.is_some());
            if let Some(limit) = space.memory_limit
                && in_memory > limit
            {
                let (needed, limit) = (ByteSize(in_memory), ByteSize(limit));
                return Err(VolumeError::TooLittleMemory { path: space.path.clone(), needed, limit });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn space(device: u64, available_bytes: Option<u64>, memory_limit: Option<u64>) -> FreeSpace {
        FreeSpace { path: "/models".into(), available_bytes, held_bytes: 0, device, memory_limit }
    }

    #[test]
    fn more_than_there_is_is_refused_with_both_numbers() {
        FreeSpace::check(&[(space(1, Some(10), None), 10)]).unwrap();
        let error = FreeSpace::check(&[(space(1, Some(10), None), 11)]).unwrap_err().to_string();
        assert!(error.contains("needs 11 B") && error.contains("has 10 B free"), "{error}");
    }

    #[test]
    fn what_earlier_runs_have_left_for_any_destination_of_a_file_system_counts_once() {
        let held = |path: &str, free, held_bytes| FreeSpace {
            path: path.into(),
            available_bytes: Some(free + held_bytes),
            held_bytes,
            ..space(1, None, None)
        };
        FreeSpace::check(&[(held("/a", 40, 60), 60), (held("/b", 40, 0), 40)]).unwrap();
        assert!(FreeSpace::check(&[(held("/a", 40, 60), 60), (held("/b", 40, 0), 41)]).is_err());
    }

    #[test]
    fn destinations_of_one_file_system_share_its_space() {
        let space = |device| space(device, Some(10), None);
        FreeSpace::check(&[(space(1), 6), (space(2), 6)]).unwrap();
        assert!(FreeSpace::check(&[(space(1), 6), (space(1), 6)]).is_err());
    }

    #[test]
    fn what_earlier_runs_hold_is_room_and_not_yet() {
        let held = FreeSpace { held_bytes: 4, ..space(1, Some(10), None) };
        assert!(!held.is_short_of(6) && held.is_short_of(7));
        assert!(!space(1, None, None).is_short_of(u64::MAX));
        FreeSpace::check(&[(held, 10)]).unwrap();
    }

    #[test]
    fn files_that_are_memory_must_fit_the_containers_limit() {
        FreeSpace::check(&[(space(1, Some(100), Some(10)), 10)]).unwrap();
        let error = FreeSpace::check(&[(space(1, Some(100), Some(10)), 11)]).unwrap_err();
        assert!(matches!(error, VolumeError::TooLittleMemory { .. }), "{error}");
    }
}
