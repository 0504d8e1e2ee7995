//! A memory cgroup for one run at a time: page cache and all, as a container's limit is.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

/// A group that ends with this value.
pub(super) struct MemoryGroup {
    directory: PathBuf,
    version: Version,
}

#[derive(Clone, Copy)]
enum Version {
    One,
    Two,
}

impl MemoryGroup {
    /// A group with this limit in bytes; the error says why there is none.
    pub(super) fn new(limit: u64) -> Result<Self, String> {
        let root = Path::new("/sys/fs/cgroup");
        let name = format!("storage-initializer-bench-{}", std::process::id());
        let (directory, version, file) = if root.join("cgroup.controllers").exists() {
            (root.join(name), Version::Two, "memory.max")
        } else {
            (root.join("memory").join(name), Version::One, "memory.limit_in_bytes")
        };
        let made = || -> io::Result<Self> {
            if matches!(version, Version::Two) {
                fs::write(root.join("cgroup.subtree_control"), "+memory")?;
            }
            fs::create_dir(&directory)?;
            let group = Self { directory: directory.clone(), version };
            fs::write(directory.join(file), limit.to_string())?;
            Ok(group)
        };
        made().map_err(|error| {
            format!("no memory cgroup of {limit} bytes can be made at {} ({error}); run as root", directory.display())
        })
    }

    /// A command that joins the group and becomes the one that follows it.
    pub(super) fn enter(&self) -> Vec<String> {
        let file = match self.version {
            Version::One => "tasks",
            Version::Two => "cgroup.procs",
        };
        let script = format!("echo $$ > {} && exec \"$@\"", self.directory.join(file).display());
        ["/bin/sh", "-c", &script, "sh"].map(str::to_owned).into()
    }

    /// The most bytes that were charged, and how often the limit was met.
    pub(super) fn peak(&self) -> (Option<u64>, Option<u64>) {
        let number = |name: &str| fs::read_to_string(self.directory.join(name)).ok()?.trim().parse().ok();
        match self.version {
            Version::One => (number("memory.max_usage_in_bytes"), number("memory.failcnt")),
            Version::Two => (number("memory.peak"), None),
        }
    }
}

impl Drop for MemoryGroup {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.directory);
    }
}
