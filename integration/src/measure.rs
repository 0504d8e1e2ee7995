//! Measures a program from outside: wall time, CPU seconds and peak memory of its whole process tree.
//!
//! The kernel accounts for children only in sum and only once they have ended, so each run gets a parent of its own: this
//! program again, with one run as its only child. Benchmarks use it; no test asserts on a time.

use std::{
    io::Read as _,
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use nix::sys::resource::{UsageWho, getrusage};
use serde_json::{Value, json};

/// The first argument that makes a program the parent of one measured run.
const MEASURE: &str = "--measure-one-run";

/// What one run cost.
#[derive(Clone, Copy, Debug)]
pub struct Cost {
    /// From start to end.
    pub wall: Duration,
    /// User and system time of the process tree.
    pub cpu: Duration,
    /// The largest resident set of any process in the tree, in bytes. Of several processes it is one, not the sum.
    pub peak_rss_bytes: u64,
    /// Its exit code; `None` where a signal ended it.
    pub exit_code: Option<i32>,
}

/// A program with its arguments and environment, ready to be measured as often as needed.
#[derive(Debug)]
pub struct Measured<'a> {
    program: &'a Path,
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
}

impl<'a> Measured<'a> {
    /// Measures `program`, with no environment but `PATH` and what [`Measured::env`] adds.
    pub fn new(program: &'a Path) -> Self {
        Self { program, arguments: Vec::new(), environment: Vec::new() }
    }

    /// Adds an argument.
    pub fn arg(mut self, argument: impl Into<String>) -> Self {
        self.arguments.push(argument.into());
        self
    }

    /// Sets a variable.
    pub fn env(mut self, name: &str, value: impl Into<String>) -> Self {
        self.environment.push((name.to_owned(), value.into()));
        self
    }

    /// Runs it once; also tells when the program was started, to compare with what a server saw.
    pub fn run(&self) -> (Cost, Instant) {
        let this = std::env::current_exe().expect("the benchmark knows its own path");
        let started = Instant::now();
        let output = Command::new(this)
            .arg(MEASURE)
            .arg(self.program)
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
        let cost = Cost {
            wall: Duration::from_micros(number("wall_us")),
            cpu: Duration::from_micros(number("cpu_us")),
            peak_rss_bytes: number("peak_rss_bytes"),
            exit_code: told["exit_code"].as_i64().and_then(|code| i32::try_from(code).ok()),
        };
        // The parent's own start is not the program's.
        (cost, started + Duration::from_micros(number("started_after_us")))
    }
}

/// Must be the first thing that a benchmark's `main` calls: where this process was started to measure one run, it does so
/// and ends.
pub fn measure_if_asked() {
    let entered = Instant::now();
    let mut arguments = std::env::args_os().skip(1);
    if arguments.next().as_deref() != Some(MEASURE.as_ref()) {
        return;
    }
    let program = arguments.next().expect("a program to measure");
    let started = Instant::now();
    let mut child = Command::new(program)
        .args(arguments)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    let mut log = String::new();
    let _ = child.stderr.take().map(|mut stderr| stderr.read_to_string(&mut log));
    let status = child.wait().expect("the program ends");
    let wall = started.elapsed();
    if !status.success() {
        eprint!("{log}");
    }
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN).expect("the kernel accounts for children");
    let seconds = |time: nix::sys::time::TimeVal| time.tv_sec() * 1_000_000 + time.tv_usec();
    let cost = json!({
        "wall_us": u64::try_from(wall.as_micros()).unwrap_or(u64::MAX),
        "cpu_us": seconds(usage.user_time()) + seconds(usage.system_time()),
        // The kernel counts in KiB.
        "peak_rss_bytes": usage.max_rss() * 1024,
        "exit_code": status.code(),
        "started_after_us": u64::try_from((started - entered).as_micros()).unwrap_or(u64::MAX),
    });
    println!("{cost}");
    std::process::exit(0);
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
