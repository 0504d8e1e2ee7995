//! Measures a program from outside: wall time, CPU seconds and peak memory of its whole process tree.
//!
//! The kernel accounts for children only in sum and only once they have ended, so each run gets a parent of its own: this
//! program again, with one run as its only child. Benchmarks use it; no test asserts on a time.

use std::{
    fs,
    io::Read as _,
    path::Path,
    process::{Command, Stdio},
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use nix::sys::resource::{UsageWho, getrusage};
use rustix::time::{ClockId, clock_gettime};
use serde_json::{Value, json};

/// The first argument that makes a program the parent of one measured run.
const MEASURE: &str = "--measure-one-run";

/// The same, and the memory of all processes of the tree is sampled meanwhile.
const MEASURE_TREE: &str = "--measure-one-tree";

/// How often a tree is looked at: rare enough to cost the measured program nothing that shows.
const SAMPLE_INTERVAL: Duration = Duration::from_millis(100);

/// What one run cost.
#[derive(Clone, Debug)]
pub struct Cost {
    /// From start to end.
    pub wall: Duration,
    /// User and system time of the process tree.
    pub cpu: Duration,
    /// The largest resident set of any process in the tree, in bytes. Of several processes it is one, not the sum.
    pub peak_rss_bytes: u64,
    /// The most that all processes of the tree had at one of the samples, in bytes, pages that they share counted once;
    /// `None` where it was not asked for.
    pub peak_tree_bytes: Option<u64>,
    /// Its exit code; `None` where a signal ended it.
    pub exit_code: Option<i32>,
    /// When the program was started, by [`monotonic`].
    pub started: Duration,
    /// What it wrote to standard error.
    pub log: String,
}

/// The time by the clock that all processes of this machine share.
pub fn monotonic() -> Duration {
    Duration::try_from(clock_gettime(ClockId::Monotonic)).unwrap_or_default()
}

/// A program with its arguments and environment, ready to be measured as often as needed.
#[derive(Clone, Debug)]
pub struct Measured {
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
    sampled: bool,
}

impl Measured {
    /// Measures `program`, with no environment but `PATH` and what [`Measured::env`] adds.
    pub fn new(program: &Path) -> Self {
        Self { arguments: vec![program.display().to_string()], environment: Vec::new(), sampled: false }
    }

    /// Adds an argument.
    pub fn arg(mut self, argument: impl Into<String>) -> Self {
        self.arguments.push(argument.into());
        self
    }

    /// Adds arguments.
    pub fn args<'a>(self, arguments: impl IntoIterator<Item = &'a str>) -> Self {
        arguments.into_iter().fold(self, Self::arg)
    }

    /// Lets another command run this one: its words come first.
    pub fn under<'a>(mut self, command: impl IntoIterator<Item = &'a str>) -> Self {
        self.arguments.splice(0..0, command.into_iter().map(str::to_owned));
        self
    }

    /// Sets a variable.
    pub fn env(mut self, name: &str, value: impl Into<String>) -> Self {
        self.environment.push((name.to_owned(), value.into()));
        self
    }

    /// Also samples the memory of all its processes in sum.
    pub fn sampled(mut self) -> Self {
        self.sampled = true;
        self
    }

    /// Runs it once.
    pub fn run(&self) -> Cost {
        let this = std::env::current_exe().expect("the benchmark knows its own path");
        let output = Command::new(this)
            .arg(if self.sampled { MEASURE_TREE } else { MEASURE })
            .args(&self.arguments)
            .env_clear()
            .env("PATH", "/usr/local/bin:/usr/bin:/bin")
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stderr(Stdio::inherit())
            .output()
            .expect("the benchmark can start itself");
        let told: Value = serde_json::from_slice(&output.stdout).expect("a measured run prints its cost");
        let number = |name: &str| told[name].as_u64().expect("every cost is a number");
        Cost {
            wall: Duration::from_micros(number("wall_us")),
            cpu: Duration::from_micros(number("cpu_us")),
            peak_rss_bytes: number("peak_rss_bytes"),
            peak_tree_bytes: told["peak_tree_bytes"].as_u64(),
            exit_code: told["exit_code"].as_i64().and_then(|code| i32::try_from(code).ok()),
            started: Duration::from_micros(number("started_us")),
            log: told["log"].as_str().unwrap_or_default().to_owned(),
        }
    }
}

/// Must be the first thing that a benchmark's `main` calls: where this process was started to measure one run, it does so
/// and ends.
pub fn measure_if_asked() {
    let mut arguments = std::env::args_os().skip(1);
    let sampled = match arguments.next().and_then(|first| first.into_string().ok()).as_deref() {
        Some(MEASURE) => false,
        Some(MEASURE_TREE) => true,
        _ => return,
    };
    let program = arguments.next().expect("a program to measure");
    let mut command = Command::new(program);
    command.args(arguments).stdout(Stdio::null()).stderr(Stdio::piped());
    let started = monotonic();
    let clock = Instant::now();
    let mut child = command.spawn().expect("the program starts");
    let ended = AtomicBool::new(false);
    let mut log = Vec::new();
    let root = child.id();
    let (status, wall, peak_tree) = std::thread::scope(|scope| {
        let sampler = sampled.then(|| scope.spawn(|| sample_tree(root, &ended)));
        let _ = child.stderr.take().map(|mut stderr| stderr.read_to_end(&mut log));
        let status = child.wait().expect("the program ends");
        let wall = clock.elapsed();
        ended.store(true, Ordering::Relaxed);
        let peak = sampler.and_then(|sampler| {
            sampler.thread().unpark();
            sampler.join().ok()
        });
        (status, wall, peak)
    });
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN).expect("the kernel accounts for children");
    let microseconds = |time: nix::sys::time::TimeVal| time.tv_sec() * 1_000_000 + time.tv_usec();
    let whole = |duration: Duration| u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
    let cost = json!({
        "wall_us": whole(wall),
        "cpu_us": microseconds(usage.user_time()) + microseconds(usage.system_time()),
        // The kernel counts in KiB.
        "peak_rss_bytes": usage.max_rss() * 1024,
        "peak_tree_bytes": peak_tree,
        "exit_code": status.code(),
        "started_us": whole(started),
        "log": String::from_utf8_lossy(&log),
    });
    println!("{cost}");
    std::process::exit(0);
}

/// The most memory in bytes that the tree below `root` had at one of the samples, until `ended`.
fn sample_tree(root: u32, ended: &AtomicBool) -> u64 {
    let mut peak = 0;
    while !ended.load(Ordering::Relaxed) {
        std::thread::park_timeout(SAMPLE_INTERVAL);
        peak = peak.max(tree_bytes(root));
    }
    peak
}

/// The proportional set sizes of a process and all its descendants, in bytes. What has ended meanwhile counts nothing.
fn tree_bytes(process: u32) -> u64 {
    let text = |name: &str| fs::read_to_string(format!("/proc/{process}/{name}")).unwrap_or_default();
    let rollup = text("smaps_rollup");
    let kib = rollup.lines().find_map(|line| line.strip_prefix("Pss:")?.trim().strip_suffix("kB")?.trim().parse().ok());
    let threads = fs::read_dir(format!("/proc/{process}/task")).into_iter().flatten().flatten();
    let children: u64 = threads
        .map(|thread| fs::read_to_string(thread.path().join("children")).unwrap_or_default())
        .flat_map(|children| children.split_whitespace().filter_map(|id| id.parse().ok()).collect::<Vec<u32>>())
        .map(tree_bytes)
        .sum();
    kib.unwrap_or(0_u64) * 1024 + children
}

/// Median, minimum and maximum of a figure over some runs.
#[derive(Clone, Copy, Debug)]
pub struct Spread {
    /// The median.
    pub median: f64,
    /// The least.
    pub min: f64,
    /// The largest.
    pub max: f64,
}

impl Spread {
    /// Of at least one figure.
    pub fn of(mut figures: Vec<f64>) -> Self {
        figures.sort_by(f64::total_cmp);
        let (Some(min), Some(max)) = (figures.first().copied(), figures.last().copied()) else {
            panic!("a spread of no figures");
        };
        let middle = figures.len() / 2;
        let median =
            if figures.len() % 2 == 1 { figures[middle] } else { (figures[middle - 1] + figures[middle]) / 2.0 };
        Self { median, min, max }
    }
}

impl std::fmt::Display for Spread {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:.2} ({:.2} to {:.2})", self.median, self.min, self.max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_an_even_number_of_figures_is_between_the_middle_two() {
        assert_eq!(Spread::of(vec![4.0, 1.0, 3.0, 2.0]).median, 2.5);
        assert_eq!(Spread::of(vec![3.0, 1.0, 2.0]).median, 2.0);
    }
}
