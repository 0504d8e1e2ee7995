//! The machine that the figures are of.

use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
};

/// `f_type` of tmpfs and ramfs: statfs(2).
const MEMORY_FILE_SYSTEMS: [i64; 2] = [0x0102_1994, 0x8584_58f6];

/// Refuses a directory whose files are memory.
pub(super) fn refuse_memory_file_system(directory: &Path) -> Result<(), String> {
    let found = rustix::fs::statfs(directory).map_err(|error| format!("{}: {error}", directory.display()))?;
    #[allow(clippy::unnecessary_cast, reason = "the type differs from one architecture to the next")]
    let kind = found.f_type as i64;
    if MEMORY_FILE_SYSTEMS.contains(&kind) {
        return Err(format!(
            "{} is a file system in memory: allocating its pages would be part of every figure, and the files would take \
             the memory that the page cache needs; name a directory on a disk with --destination",
            directory.display()
        ));
    }
    Ok(())
}

/// The machine and the binary, as a Markdown list.
pub(super) fn describe(destination: &Path, binary_bytes: u64) -> String {
    let cpuinfo = read("/proc/cpuinfo");
    let flags = field(&cpuinfo, "flags");
    let ciphers: Vec<&str> =
        flags.split(' ').filter(|flag| ["aes", "vaes", "vpclmulqdq", "avx512f"].contains(flag)).collect();
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let mut text = String::new();
    let _ = writeln!(text, "- CPU: {} ({}), {cores} cores", field(&cpuinfo, "model name"), ciphers.join(", "));
    let _ = writeln!(text, "- memory: {:.1} GiB", memory_bytes("MemTotal") as f64 / f64::from(1 << 30));
    let _ = writeln!(text, "- kernel: {}", read("/proc/sys/kernel/osrelease").trim());
    let _ = writeln!(text, "- file system of the output: {}", file_system(destination));
    let _ = writeln!(text, "- release binary: {:.2} MB", binary_bytes as f64 / 1e6);
    text
}

/// A figure of proc_meminfo(5); 0 where there is none.
pub(super) fn memory_bytes(name: &str) -> u64 {
    let kib: u64 = field(&read("/proc/meminfo"), name).trim_end_matches(" kB").parse().unwrap_or_default();
    kib << 10
}

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

fn field(text: &str, name: &str) -> String {
    let line = text.lines().find(|line| line.starts_with(name));
    line.and_then(|line| Some(line.split_once(':')?.1.trim().to_owned())).unwrap_or_else(|| "unknown".to_owned())
}

/// The type of the mount that a directory is on: proc_pid_mountinfo(5).
fn file_system(directory: &Path) -> String {
    let directory = directory.canonicalize().unwrap_or_default();
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let mount = |line: &str| -> Option<(PathBuf, String)> {
        let (left, right) = line.split_once(" - ")?;
        Some((left.split(' ').nth(4)?.into(), right.split(' ').next()?.to_owned()))
    };
    let on = mounts.lines().filter_map(mount).filter(|(point, _)| directory.starts_with(point));
    on.max_by_key(|(point, _)| point.components().count()).map_or_else(|| "unknown".to_owned(), |(_, kind)| kind)
}
