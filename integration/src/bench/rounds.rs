//! Runs a case: every client in turn, in each round.

use std::{
    fs::{self, File},
    io,
    path::Path,
    time::Duration,
};

use super::{
    ballast::Ballast,
    cases::{Case, Scale},
    clients::{Client, Programs},
    memory::MemoryGroup,
    options::Options,
    report::{CaseReport, Run},
    server::{Server, map},
};
use crate::{
    measure::Cost,
    pki::{Authority, LeafSpec},
};

/// The memory limit of [`Client::Limited`]: what a small init container has.
const LIMIT_BYTES: u64 = 64 << 20;

/// What a run has of free memory beyond what it writes: for the programs, and so that the kernel need not look for any.
const SPARE_BYTES: u64 = 1536 << 20;

/// Why a case has no figures.
pub(super) enum Failure {
    /// This machine does not allow it.
    Impossible(String),
    /// A client or the benchmark did not do what it should.
    Broken(String),
}

impl From<String> for Failure {
    fn from(reason: String) -> Self {
        Self::Broken(reason)
    }
}

/// Runs every round of a case.
pub(super) fn run(
    case: &Case,
    options: &Options,
    cache: &Path,
    data: &Path,
    ballast: &mut Ballast,
) -> Result<CaseReport, Failure> {
    let group = case.clients.contains(&Client::Limited).then(|| MemoryGroup::new(LIMIT_BYTES)).transpose();
    let group = group.map_err(Failure::Impossible)?;
    let scratch = tempfile::Builder::new().prefix("bench-").tempdir_in(&options.destination);
    let scratch = scratch.map_err(|error| format!("{}: {error}", options.destination.display()))?;
    // Absolute, for clients that change their directory.
    let path = scratch.path().canonicalize().map_err(|error| error.to_string())?;
    spread(&path);
    let authority = Authority::new("Benchmark Root CA");
    let mut server = Server::start(case, data, &authority.issue(LeafSpec::new()));
    let programs = Programs::new(cache, &path, &authority.pem());
    let limited =
        Programs::new(cache, &path, &authority.pem()).ours_under(&group.as_ref().map_or(vec![], |group| group.enter()));
    let programs = match &options.callgrind {
        Some(file) => programs.ours_under(&callgrind(file)),
        None => programs,
    };
    let content = map(&File::open(data).map_err(|error| error.to_string())?);
    let mut report = CaseReport::new(case.clone());
    for round in 0..case.rounds {
        let mut runs = Vec::new();
        for turn in 0..case.clients.len() {
            let client = case.clients[(round + turn) % case.clients.len()];
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let destination = path.join(format!("{name}-{round}-{}", client.name()));
            fs::create_dir(&destination).map_err(|error| error.to_string())?;
            let programs = if client == Client::Limited { &limited } else { &programs };
            let measured = programs.command(client, case, &server, &destination);
            ballast.leave(case.bytes() + SPARE_BYTES).map_err(|error| error.to_string())?;
            server.take_statistics();
            let cost = measured.run();
            let statistics = server.take_statistics();
            announce(case, round, client, &cost);
            if cost.exit_code != Some(0) {
                return Err(format!("{} ended with {:?}:\n{}", client.title(), cost.exit_code, cost.log).into());
            }
            check(case, client, &destination, (round == 0).then_some(&content))?;
            // Many small files are left there until the case ends, for the reason that `spread` has.
            remove_and_sync(&destination, case.scale == Scale::PerGib, ballast).map_err(|error| error.to_string())?;
            let first_request = statistics.first_request.map(|at| at.saturating_sub(cost.started));
            runs.push(Run { client, cost, statistics, first_request });
        }
        report.rounds.push(runs);
    }
    if let Some((Some(peak), met)) = group.map(|group| group.peak()) {
        report.notes.push(format!(
            "Of the 64 MiB, page cache included, {:.1} were charged at most; the limit was met {} times.",
            peak as f64 / f64::from(1 << 20),
            met.map_or_else(|| "an unknown number of".to_owned(), |met: u64| met.to_string())
        ));
    }
    Ok(report)
}

fn announce(case: &Case, round: usize, client: Client, cost: &Cost) {
    let seconds = |duration: Duration| duration.as_secs_f64();
    eprintln!(
        "{} round {} of {}: {:8} {:6.2} CPU-s {:6.2} s {:6.1} MiB",
        case.name,
        round + 1,
        case.rounds,
        client.name(),
        seconds(cost.cpu),
        seconds(cost.wall),
        cost.peak_rss_bytes as f64 / f64::from(1 << 20)
    );
}

fn callgrind(file: &Path) -> Vec<String> {
    let mut command: Vec<String> = ["valgrind", "--tool=callgrind", "--quiet"].map(str::to_owned).into();
    command.push(format!("--callgrind-out-file={}", file.display()));
    command
}

/// Every byte is there; with `content`, every byte is right. What curl makes of one object is several files.
fn check(case: &Case, client: Client, destination: &Path, content: Option<&memmap2::Mmap>) -> Result<(), String> {
    let there: u64 = files(destination).map_err(|error| error.to_string())?;
    if there != case.bytes() {
        return Err(format!("{} left {there} bytes of {}", client.title(), case.bytes()));
    }
    let Some(content) = content else { return Ok(()) };
    for object in &case.objects {
        let name = object.key.rsplit('/').next().unwrap_or_default();
        let Ok(file) = File::open(destination.join(name)) else {
            if client == Client::Curl {
                continue;
            }
            return Err(format!("{} left no {name}", client.title()));
        };
        let (start, end) = (object.offset as usize, (object.offset + object.size) as usize);
        if map(&file)[..] != content[start..end] {
            return Err(format!("{} left a {name} that differs", client.title()));
        }
    }
    Ok(())
}

/// The bytes of all files below a directory.
fn files(directory: &Path) -> io::Result<u64> {
    fs::read_dir(directory)?
        .map(|entry| {
            let entry = entry?;
            let metadata = entry.metadata()?;
            if metadata.is_dir() { files(&entry.path()) } else { Ok(metadata.len()) }
        })
        .sum()
}

/// Asks ext4 to put each directory in here somewhere else on the disk, as far as there is ext4. Without a journal it does not
/// give an inode away again for some minutes after a removal, and looks at each that it passes over: where thousands of
/// files were removed just before, the next thousands cost thirty times as much.
fn spread(directory: &Path) {
    if let Ok(directory) = File::open(directory)
        && let Ok(flags) = rustix::fs::ioctl_getflags(&directory)
    {
        let _ = rustix::fs::ioctl_setflags(&directory, flags | rustix::fs::IFlags::TOPDIR);
    }
}

/// So that no run pays for the writing back of the one before.
fn remove_and_sync(destination: &Path, remove: bool, ballast: &mut Ballast) -> io::Result<()> {
    if remove {
        fs::remove_dir_all(destination)?;
    }
    ballast.take()?;
    let parent = File::open(destination.parent().unwrap_or(destination))?;
    Ok(rustix::fs::syncfs(parent)?)
}
