//! How much memory and CPU this container has.
//!
//! Owns reading the limits that the kernel enforces, from cgroup v2, v1 and both at once, and promises never to fail:
//! what cannot be read is unknown, and unknown is `None`. How many connections that allows is left to
//! `transfer::memory`.
//!
//! The files: `/proc/self/cgroup` says where the process is in each hierarchy, `/proc/self/mountinfo` where a hierarchy
//! is mounted and which part of it. In a container with a cgroup namespace both are `/`; without one, the path is the
//! host's and the mount shows only the part from the container's own cgroup on. A limit holds for everything below it,
//! so the smallest one from the own cgroup up to the mount's root counts.
//!
//! Sources: cgroups(7), <https://docs.kernel.org/admin-guide/cgroup-v2.html>,
//! <https://docs.kernel.org/admin-guide/cgroup-v1/memory.html>, proc_pid_mountinfo(5).

use std::fs;
use std::path::{Component, Path, PathBuf};

/// cgroup v1 has no word for "no limit": it says the largest number of pages, 2^63 less a page, in bytes. No machine
/// has half of that.
const V1_UNLIMITED_BYTES: u64 = 1 << 62;

/// What this container may use.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Limits {
    /// The limit in bytes beyond which the kernel kills; `None` where there is none, or none is visible.
    pub memory_limit: Option<u64>,
    /// `MemAvailable` of `/proc/meminfo` in bytes: what the whole machine can still give without swapping.
    pub memory_available: Option<u64>,
    /// How many CPUs' time may be used, a fraction where the quota is one; never zero.
    pub cpus: f64,
}

impl Limits {
    /// Reads the limits of the running process.
    pub fn read() -> Limits {
        let processors = std::thread::available_parallelism().map_or(1, |count| count.get());
        Limits::read_from(Path::new("/"), processors)
    }

    /// The smaller of the limit and of what the machine has left, in bytes; `None` where neither is known.
    pub fn memory(&self) -> Option<u64> {
        self.memory_limit.into_iter().chain(self.memory_available).min()
    }

    /// Reads the same files below `root`, on a machine of so many processors.
    fn read_from(root: &Path, processors: usize) -> Limits {
        let hierarchies = hierarchies(root);
        let memory_limit = hierarchies.iter().filter_map(Hierarchy::memory_limit).min();
        let quota = hierarchies.iter().filter_map(Hierarchy::cpu_quota).min_by(f64::total_cmp);
        let processors = processors.max(1) as f64;
        Limits {
            memory_limit,
            memory_available: memory_available(root),
            cpus: quota.map_or(processors, |quota| quota.min(processors)),
        }
    }
}

fn memory_available(root: &Path) -> Option<u64> {
    let meminfo = fs::read_to_string(root.join("proc/meminfo")).ok()?;
    let kib = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:")?.trim().strip_suffix("kB"))?;
    kib.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// What a hierarchy's files are called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Version {
    /// `memory.max`, `cpu.max`.
    V2,
    /// `memory.limit_in_bytes`, `cpu.cfs_quota_us`, `cpu.cfs_period_us`.
    V1,
}

/// One mounted hierarchy, as far as this process is concerned.
#[derive(Debug)]
struct Hierarchy {
    version: Version,
    /// The own cgroup's directory and those above it, up to the mount point.
    directories: Vec<PathBuf>,
}

impl Hierarchy {
    fn memory_limit(&self) -> Option<u64> {
        self.directories
            .iter()
            .filter_map(|directory| match self.version {
                // "max" is no number, hence no limit.
                Version::V2 => read(directory, "memory.max")?.parse().ok(),
                Version::V1 => {
                    read(directory, "memory.limit_in_bytes")?.parse().ok().filter(|limit| *limit < V1_UNLIMITED_BYTES)
                }
            })
            .filter(|limit: &u64| *limit > 0)
            .min()
    }

    fn cpu_quota(&self) -> Option<f64> {
        self.directories
            .iter()
            .filter_map(|directory| {
                let (quota, period) = match self.version {
                    Version::V2 => {
                        let max = read(directory, "cpu.max")?;
                        let (quota, period) = max.split_once(' ')?;
                        (quota.to_owned(), period.to_owned())
                    }
                    Version::V1 => (read(directory, "cpu.cfs_quota_us")?, read(directory, "cpu.cfs_period_us")?),
                };
                // "max" and -1 mean no quota, and neither is an unsigned number.
                let (quota, period) = (quota.parse::<u64>().ok()?, period.parse::<u64>().ok()?);
                (quota > 0 && period > 0).then(|| quota as f64 / period as f64)
            })
            .min_by(f64::total_cmp)
    }
}

fn read(directory: &Path, file: &str) -> Option<String> {
    Some(fs::read_to_string(directory.join(file)).ok()?.trim().to_owned())
}

/// The v2 hierarchy, and the v1 ones of the two controllers that matter; a hybrid machine has all of them, each
/// controller in one.
fn hierarchies(root: &Path) -> Vec<Hierarchy> {
    let memberships = fs::read_to_string(root.join("proc/self/cgroup")).unwrap_or_default();
    let mounts = fs::read_to_string(root.join("proc/self/mountinfo")).unwrap_or_default();
    mounts
        .lines()
        .filter_map(|line| {
            let mount = Mount::parse(line)?;
            let path = memberships.lines().find_map(|line| mount.path_of(line))?;
            let mount_point = root.join(mount.mount_point.strip_prefix("/").ok()?);
            Some(Hierarchy { version: mount.version, directories: directories(&mount_point, &mount.root, path) })
        })
        .collect()
}

/// A cgroup mount, one line of mountinfo:
/// `32 31 0:29 /docker/1a2b /sys/fs/cgroup/memory ro,nosuid - cgroup cgroup rw,memory`.
#[derive(Debug)]
struct Mount {
    version: Version,
    /// Which part of the hierarchy is mounted.
    root: PathBuf,
    mount_point: PathBuf,
    /// Of a v1 hierarchy: `rw`, its controllers, or `name=systemd`.
    options: Vec<String>,
}

impl Mount {
    fn parse(line: &str) -> Option<Mount> {
        // Optional fields, as many as there are, end at a lone hyphen.
        let (mount, file_system) = line.split_once(" - ")?;
        let mut mount = mount.split(' ').skip(3);
        let (root, mount_point) = (unescape(mount.next()?), unescape(mount.next()?));
        let mut file_system = file_system.split(' ');
        let version = match file_system.next()? {
            "cgroup2" => Version::V2,
            "cgroup" => Version::V1,
            _ => return None,
        };
        let options = file_system.nth(1)?.split(',').map(str::to_owned).collect();
        Some(Mount { version, root: root.into(), mount_point: mount_point.into(), options })
    }

    /// The own path in this hierarchy, where this line of `/proc/self/cgroup` is about it: `4:memory:/kubepods/pod1/a`,
    /// or `0::/kubepods/pod1/a` for v2. Of v1, only the controllers for memory and CPU.
    fn path_of<'a>(&self, membership: &'a str) -> Option<&'a str> {
        let (id, rest) = membership.split_once(':')?;
        let (controllers, path) = rest.split_once(':')?;
        let ours = match self.version {
            Version::V2 => id == "0" && controllers.is_empty(),
            Version::V1 => controllers
                .split(',')
                .filter(|controller| matches!(*controller, "memory" | "cpu"))
                .any(|controller| self.options.iter().any(|option| option == controller)),
        };
        ours.then_some(path)
    }
}

/// The own cgroup's directory below the mount point, and every one above it up to the mount point. A path that is not
/// below the mount's root (`/../x` from outside of the namespace, or another container's part) leaves the mount point
/// alone.
fn directories(mount_point: &Path, mount_root: &Path, path: &str) -> Vec<PathBuf> {
    let below = Path::new(path)
        .strip_prefix(mount_root)
        .ok()
        .filter(|below| below.components().all(|part| matches!(part, Component::Normal(_))))
        .unwrap_or(Path::new(""));
    below.ancestors().map(|below| mount_point.join(below)).collect()
}

/// mountinfo writes blanks, tabs, line breaks and backslashes as three octal digits: `\040`.
fn unescape(field: &str) -> String {
    [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")]
        .iter()
        .fold(field.to_owned(), |field, (escape, character)| field.replace(escape, character))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;
    const V2_MOUNT: &str = "30 23 0:26 / /sys/fs/cgroup ro,nosuid,nodev - cgroup2 cgroup rw,nsdelegate\n";
    const V1_MOUNTS: &str = "\
        31 23 0:27 / /sys/fs/cgroup ro,nosuid - tmpfs tmpfs ro,mode=755\n\
        32 31 0:28 / /sys/fs/cgroup/systemd ro - cgroup cgroup rw,xattr,name=systemd\n\
        33 31 0:29 / /sys/fs/cgroup/cpu,cpuacct ro master:13 - cgroup cgroup rw,cpu,cpuacct\n\
        34 31 0:30 / /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n";
    const V1_UNLIMITED: &str = "9223372036854771712\n";

    /// A machine of eight processors with these files.
    fn limits(files: &[(&str, &str)]) -> Limits {
        let root = tempfile::tempdir().unwrap();
        for (path, content) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
        Limits::read_from(root.path(), 8)
    }

    fn none() -> Limits {
        Limits { memory_limit: None, memory_available: None, cpus: 8.0 }
    }

    #[test]
    fn nothing_to_read_is_nothing_known() {
        assert_eq!(limits(&[]), none());
        assert_eq!(none().memory(), None);
    }

    #[test]
    fn a_pod_on_cgroup_v2_sees_its_own_limits() {
        let files = [
            ("proc/self/cgroup", "0::/\n"),
            ("proc/self/mountinfo", V2_MOUNT),
            ("sys/fs/cgroup/memory.max", "536870912\n"),
            ("sys/fs/cgroup/cpu.max", "150000 100000\n"),
        ];
        assert_eq!(limits(&files), Limits { memory_limit: Some(512 * MIB), cpus: 1.5, ..none() });
    }

    #[test]
    fn max_is_no_limit() {
        let files = [
            ("proc/self/cgroup", "0::/\n"),
            ("proc/self/mountinfo", V2_MOUNT),
            ("sys/fs/cgroup/memory.max", "max\n"),
            ("sys/fs/cgroup/cpu.max", "max 100000\n"),
        ];
        assert_eq!(limits(&files), none());
    }

    #[test]
    fn the_smallest_limit_on_the_way_up_counts() {
        let files = [
            ("proc/self/cgroup", "0::/user.slice/app.scope\n"),
            ("proc/self/mountinfo", V2_MOUNT),
            ("sys/fs/cgroup/user.slice/app.scope/memory.max", "max\n"),
            ("sys/fs/cgroup/user.slice/app.scope/cpu.max", "400000 100000\n"),
            ("sys/fs/cgroup/user.slice/memory.max", "1073741824\n"),
            ("sys/fs/cgroup/user.slice/cpu.max", "50000 100000\n"),
            ("sys/fs/cgroup/other.slice/memory.max", "1\n"),
        ];
        assert_eq!(limits(&files), Limits { memory_limit: Some(1024 * MIB), cpus: 0.5, ..none() });
    }

    #[test]
    fn a_pod_on_cgroup_v1_sees_its_own_limits() {
        // Without a cgroup namespace: the host's path, and mounts that begin at it.
        let mounts = V1_MOUNTS.replace(" / /sys/fs/cgroup/", " /kubepods/burstable/pod1/a /sys/fs/cgroup/");
        let files = [
            ("proc/self/cgroup", "4:memory:/kubepods/burstable/pod1/a\n3:cpu,cpuacct:/kubepods/burstable/pod1/a\n"),
            ("proc/self/mountinfo", mounts.as_str()),
            ("sys/fs/cgroup/memory/memory.limit_in_bytes", "268435456\n"),
            ("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "200000\n"),
            ("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us", "100000\n"),
        ];
        assert_eq!(limits(&files), Limits { memory_limit: Some(256 * MIB), cpus: 2.0, ..none() });
    }

    #[test]
    fn the_largest_number_of_cgroup_v1_is_no_limit() {
        let files = [
            ("proc/self/cgroup", "4:memory:/\n3:cpu,cpuacct:/\n"),
            ("proc/self/mountinfo", V1_MOUNTS),
            ("sys/fs/cgroup/memory/memory.limit_in_bytes", V1_UNLIMITED),
            ("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "-1\n"),
            ("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us", "100000\n"),
        ];
        assert_eq!(limits(&files), none());
    }

    #[test]
    fn a_process_of_the_host_walks_up_on_cgroup_v1_too() {
        let files = [
            ("proc/self/cgroup", "4:memory:/docker/a\n"),
            ("proc/self/mountinfo", V1_MOUNTS),
            ("sys/fs/cgroup/memory/docker/a/memory.limit_in_bytes", V1_UNLIMITED),
            ("sys/fs/cgroup/memory/docker/memory.limit_in_bytes", "1048576\n"),
            ("sys/fs/cgroup/memory/memory.limit_in_bytes", V1_UNLIMITED),
        ];
        assert_eq!(limits(&files).memory_limit, Some(MIB));
    }

    #[test]
    fn a_hybrid_machine_has_each_controller_in_one_of_both() {
        let mounts = format!("{V1_MOUNTS}41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n");
        let files = [
            ("proc/self/cgroup", "4:memory:/a\n1:name=systemd:/\n0::/a\n"),
            ("proc/self/mountinfo", mounts.as_str()),
            ("sys/fs/cgroup/memory/a/memory.limit_in_bytes", "1048576\n"),
            ("sys/fs/cgroup/unified/a/cpu.max", "100000 100000\n"),
        ];
        assert_eq!(limits(&files), Limits { memory_limit: Some(MIB), cpus: 1.0, ..none() });
    }

    #[test]
    fn a_path_outside_of_the_mount_leaves_the_mount_point() {
        let files = |path| {
            limits(&[
                ("proc/self/cgroup", path),
                ("proc/self/mountinfo", V2_MOUNT),
                ("sys/fs/cgroup/memory.max", "1048576\n"),
                ("sys/fs/memory.max", "1\n"),
            ])
        };
        assert_eq!(files("0::/../other\n").memory_limit, Some(MIB));
        let part = V2_MOUNT.replace(" / /sys", " /kubepods/a /sys");
        let elsewhere = limits(&[
            ("proc/self/cgroup", "0::/kubepods/b\n"),
            ("proc/self/mountinfo", &part),
            ("sys/fs/cgroup/memory.max", "1048576\n"),
        ]);
        assert_eq!(elsewhere.memory_limit, Some(MIB));
    }

    #[test]
    fn a_mount_point_with_a_blank_is_found() {
        let files = [
            ("proc/self/cgroup", "0::/\n"),
            ("proc/self/mountinfo", "30 23 0:26 / /my\\040cgroup rw shared:1 master:2 - cgroup2 none rw\n"),
            ("my cgroup/memory.max", "1048576\n"),
        ];
        assert_eq!(limits(&files).memory_limit, Some(MIB));
    }

    #[test]
    fn the_machine_s_free_memory_counts_where_it_is_less() {
        let with_limit = |limit: &str| {
            limits(&[
                ("proc/self/cgroup", "0::/\n"),
                ("proc/self/mountinfo", V2_MOUNT),
                ("sys/fs/cgroup/memory.max", limit),
                ("proc/meminfo", "MemTotal:        8000000 kB\nMemFree:  100 kB\nMemAvailable:    2048 kB\n"),
            ])
        };
        assert_eq!(with_limit("1048576").memory(), Some(MIB));
        assert_eq!(with_limit("1048576000").memory(), Some(2 * MIB));
        assert_eq!(with_limit("max").memory(), Some(2 * MIB));
    }

    #[test]
    fn files_that_make_no_sense_are_unknown() {
        let files = [
            ("proc/self/cgroup", "0::/\n:\n\nx"),
            ("proc/self/mountinfo", &format!("\n - \n1 2\n1 2 3 - cgroup2\n{V2_MOUNT}")),
            ("sys/fs/cgroup/memory.max", "0\n"),
            ("sys/fs/cgroup/cpu.max", "100000 0\n"),
            ("proc/meminfo", "MemAvailable: many kB\n"),
        ];
        assert_eq!(limits(&files), none());
    }

    #[test]
    fn the_running_process_has_at_least_some_cpu() {
        assert!(Limits::read().cpus > 0.0);
    }
}
