//! What a finished file remembers of the object that it was: its modification time.
//!
//! After success nothing of ours may stay beside the model, and yet a restart must know which files are whole and
//! unchanged, at the same size too. The one place left is the file itself. Its modification time gets the object's
//! `Last-Modified`, as `aws s3 sync` and `rclone` have it, and its nanoseconds, which S3 does not have, a digest of what
//! the object was and of the machine's boot. Whoever writes to the file later changes the time, and the stamp is gone.
//!
//! The boot belongs to it because files are not synced: after a crash of the machine a file may have its name and its
//! length, but not its bytes. Then the stamp does not fit, and the bytes are compared with the store's checksum instead.

use std::{
    fs::{File, Metadata},
    os::unix::fs::MetadataExt as _,
    sync::OnceLock,
};

use aws_lc_rs::digest::{SHA256, digest};
use rustix::fs::{Timespec, Timestamps, UTIME_OMIT, futimens};

/// The modification time of a file that is one certain state of one certain object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    seconds: i64,
    nanoseconds: u32,
}

impl Stamp {
    /// The stamp of what `identity` names (of another state of the object it is another one), which was last modified
    /// so many seconds after the epoch.
    pub fn new(identity: &str, modified_seconds: i64) -> Self {
        Self::at_boot(identity, modified_seconds, boot_id())
    }

    fn at_boot(identity: &str, modified_seconds: i64, boot_id: &str) -> Self {
        let digest = digest(&SHA256, format!("{boot_id}\n{modified_seconds}\n{identity}").as_bytes());
        let number = digest.as_ref().iter().take(8).fold(0, |number, byte| number << 8 | u64::from(*byte));
        // Never zero: that is what a file system without nanoseconds makes of any time.
        Self { seconds: modified_seconds, nanoseconds: 1 + (number % 999_999_999) as u32 }
    }

    /// Whether the file has this stamp.
    pub(super) fn is_on(&self, metadata: &Metadata) -> bool {
        metadata.mtime() == self.seconds && metadata.mtime_nsec() == i64::from(self.nanoseconds)
    }

    /// Sets the file's modification time; `false` where the file system does not keep it exactly, or where the file is
    /// somebody else's. Then a later run compares checksums.
    pub fn put_on(&self, file: &File) -> bool {
        let omitted = Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT };
        let modified = Timespec { tv_sec: self.seconds, tv_nsec: self.nanoseconds.into() };
        futimens(file, &Timestamps { last_access: omitted, last_modification: modified }).is_ok()
            && file.metadata().is_ok_and(|metadata| self.is_on(&metadata))
    }
}

/// Another one after every start of the machine. Where the kernel does not tell it, another one for every process: then
/// nothing of another process is trusted unseen.
pub fn boot_id() -> &'static str {
    static BOOT_ID: OnceLock<String> = OnceLock::new();
    BOOT_ID.get_or_init(|| match std::fs::read_to_string("/proc/sys/kernel/random/boot_id") {
        Ok(id) => id.trim().to_owned(),
        Err(_) => format!("process-{:016x}", fastrand::u64(..)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_is_found_again_and_another_state_is_not() {
        let file = tempfile::tempfile().unwrap();
        let stamp = Stamp::new("etag 1", 1_700_000_000);
        assert!(stamp.put_on(&file));
        let metadata = file.metadata().unwrap();
        assert!(stamp.is_on(&metadata));
        assert!(!Stamp::new("etag 2", 1_700_000_000).is_on(&metadata));
        assert!(!Stamp::new("etag 1", 1_700_000_001).is_on(&metadata));
    }

    #[test]
    fn whoever_writes_to_the_file_removes_its_stamp() {
        use std::io::Write as _;
        let mut file = tempfile::tempfile().unwrap();
        let stamp = Stamp::new("etag", 1_700_000_000);
        assert!(stamp.put_on(&file));
        file.write_all(b"x").unwrap();
        assert!(!stamp.is_on(&file.metadata().unwrap()));
    }

    #[test]
    fn a_stamp_does_not_outlive_the_machines_boot() {
        let stamp = |boot| Stamp::at_boot("etag", 1, boot);
        assert_eq!(stamp("a"), stamp("a"));
        assert_ne!(stamp("a"), stamp("b"));
    }
}
