//! One bucket, one volume, and some runs on them.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::Seen;
use super::bucket::{Bucket, ONE_REQUEST_BYTES, large_size, size};
use super::chance::Chance;
use super::trouble::{ATTEMPTS, Troubles};
use crate::initializer::{Initializer, Outcome, ProcessHold, Signal};
use crate::pod::Pod;
use crate::s3_server::faults::{Action, Fault, Gate, Hold};
use crate::s3_server::{Operation, RecordedRequest};
use crate::sockets::unread_bytes;
use crate::tree::Tree;

/// How long anything may take; only a mistake takes so long.
const LIMIT: Duration = Duration::from_secs(120);

/// What a killed process loses of each connection's work at most.
const EXTENT_BYTES: u64 = 4 << 20;

/// What the server's HTTP layer may hold of a connection's bytes that it counts as sent.
const SERVER_BUFFER_BYTES: u64 = 1 << 20;

/// How many runs the episode has that begins with this chance.
pub(super) fn runs(mut chance: Chance) -> usize {
    3 + chance.below(5) as usize
}

/// Plays an episode. Panics where a promise is broken, with its name and everything that happened.
pub(super) fn play(name: &str, mut chance: Chance) -> Seen {
    let runs = runs(chance.clone());
    let mut episode = Episode::begin(&mut chance);
    for number in 1..=runs {
        let result = episode.run(number == runs, &mut chance);
        if let Err(broken) = result.and_then(|()| episode.check_bytes()) {
            panic!("{name}, run {number}: {broken}\n{}", episode.history);
        }
    }
    episode.seen
}

struct Episode {
    pod: Pod,
    bucket: Bucket,
    seen: Seen,
    /// How the process ends of its runs, and which faults strike.
    has_faults: bool,
    is_complete: bool,
    objects_made: u64,
    lost_most: u64,
    history: String,
}

/// Where a run is killed.
#[derive(Debug, Clone, Copy)]
enum End {
    /// Nowhere.
    Own,
    /// When so many bytes of objects were sent.
    Sent(u64),
    /// When this is asked.
    Asked(Operation),
}

impl Episode {
    fn begin(chance: &mut Chance) -> Self {
        let (is_plain, is_versioned) = (chance.hits(60), chance.hits(25));
        // With short pages files wait for their names while the listing goes on.
        let page_size = chance.one_of(&[1000, 1000, 3, 2]);
        let pod = Pod::with(|server| {
            let server = server.page_size(page_size);
            let server = if is_plain { server.plain() } else { server };
            if is_versioned { server.versioned_bucket("models") } else { server }
        });
        let has_faults = chance.hits(70);
        let mut episode = Self {
            pod,
            bucket: Bucket::default(),
            seen: Seen::default(),
            has_faults,
            is_complete: false,
            objects_made: 0,
            lost_most: 0,
            history: String::new(),
        };
        episode.put_new(large_size(chance), chance);
        for _ in 0..chance.below(6) + 2 {
            let size_bytes = size(chance);
            episode.put_new(size_bytes, chance);
        }
        episode
    }

    fn put_new(&mut self, size_bytes: u64, chance: &mut Chance) {
        self.objects_made += 1;
        let directory = chance.one_of(&["", "sub/", "sub/deeper/"]);
        let path = format!("{directory}object-{}", self.objects_made);
        self.bucket.put_new(self.pod.server.store(), &path, size_bytes, chance);
    }

    /// Somebody uploads, replaces or removes something between two runs.
    fn change_bucket(&mut self, chance: &mut Chance) {
        let store = self.pod.server.store();
        let objects = self.bucket.objects();
        let (path, size_bytes) = chance.one_of(&objects);
        match chance.below(4) {
            0 if objects.len() > 2 => self.bucket.remove(store, &path),
            1 => {
                let size_bytes = size(chance);
                self.put_new(size_bytes, chance);
            }
            2 => self.bucket.put(store, &path, size(chance), chance.number()),
            _ => self.bucket.put(store, &path, size_bytes, chance.number()),
        }
        self.note(&format!("the bucket has changed: {path}"));
    }

    fn run(&mut self, is_last: bool, chance: &mut Chance) -> Result<(), String> {
        // On a complete volume nothing happens any more.
        if chance.hits(if self.is_complete { 75 } else { 20 }) {
            self.change_bucket(chance);
        }
        let has_faults = self.has_faults && !is_last && chance.hits(70);
        let troubles = match has_faults {
            true => Troubles::draw(&self.pod.server, &self.bucket, chance),
            false => Troubles::default(),
        };
        let bytes = self.bucket.objects().iter().map(|(_, size_bytes)| size_bytes).sum();
        let end = match chance.below(10) {
            _ if is_last => End::Own,
            0..=2 => End::Sent(chance.below(bytes)),
            3..=5 => End::Sent(chance.below(16 << 20)),
            6 => End::Asked(chance.one_of(&[Operation::ListObjectsV2, Operation::HeadObject])),
            _ => End::Own,
        };
        let signal = if chance.hits(75) { Signal::KILL } else { Signal::TERM };
        self.bucket.run_begins();
        self.pod.server.forget_requests();
        let (outcome, unread) = self.start_and_end(end, signal);
        self.pod.server.disarm_faults();
        let gets = self.pod.server.requests_of(Operation::GetObject);
        let sent: u64 = gets.iter().map(|get| get.bytes_sent).sum();
        self.note(&format!("{end:?} {signal:?}: {}, {sent} bytes sent\n{}", outcome.status, troubles.words()));
        self.seen.runs += 1;
        self.seen.faults += troubles.struck();
        self.seen.bytes += sent;
        let checked = self.check(&outcome, &troubles, is_last);
        if outcome.code() != Some(0) {
            self.lost_most += lost_most(&gets, &self.bucket) + unread;
        }
        checked.map_err(|broken| format!("{broken}; stderr:\n{}", outcome.stderr))
    }

    /// Runs the product to its end, or to the one that is meant; and what was sent that it had not read then.
    fn start_and_end(&self, end: End, signal: Signal) -> (Outcome, u64) {
        let server = &self.pod.server;
        let gate = match end {
            End::Own => Gate::new(),
            End::Sent(bytes) => server.hold_after(bytes),
            End::Asked(operation) => {
                let gate = Gate::new();
                server.fault(Fault::on(operation, Action::Delay(Hold::Until(gate.clone()))));
                gate
            }
        };
        let running = self.download().spawn();
        let process = running.hold();
        let unread = AtomicU64::new(0);
        let outcome = std::thread::scope(|scope| {
            scope.spawn(|| {
                if gate.wait_reached_or_opened(LIMIT) {
                    unread.store(end_measured(&process, signal, server.address().port()), Ordering::Relaxed);
                }
            });
            let outcome = running.wait();
            gate.open();
            outcome
        });
        (outcome, unread.into_inner())
    }

    fn download(&self) -> Initializer {
        let run = self.pod.download("s3://models/m").limit(LIMIT);
        let run = run.env("S3_READ_TIMEOUT", "2").env("S3_CONNECT_TIMEOUT", "2");
        run.env("S3_MAX_ATTEMPTS", ATTEMPTS.to_string()).env("LOG_LEVEL", "debug")
    }

    fn check(&mut self, outcome: &Outcome, troubles: &Troubles, is_last: bool) -> Result<(), String> {
        let tree = Tree::read(&self.pod.models());
        self.bucket.check_visible(&tree)?;
        self.is_complete = outcome.code() == Some(0);
        match (outcome.code(), outcome.signal()) {
            (Some(0), _) => {
                self.seen.completed += 1;
                self.bucket.check_complete(&tree)
            }
            _ if is_last => Err(format!("the last run ended with {}", outcome.status)),
            (None, Some(9)) => {
                self.seen.killed += 1;
                Ok(())
            }
            (Some(143), _) => {
                self.seen.terminated += 1;
                Ok(())
            }
            (Some(code), _) if troubles.explain(code) => {
                self.seen.failed += 1;
                match outcome.termination_message {
                    Some(_) => Ok(()),
                    None => Err(format!("exit code {code} without a word")),
                }
            }
            _ => Err(format!("nothing explains {}", outcome.status)),
        }
    }

    /// No byte was moved twice, but for what the kills may have cost.
    fn check_bytes(&mut self) -> Result<(), String> {
        if self.seen.faults > 0 {
            return Ok(());
        }
        let again = self.seen.bytes.saturating_sub(self.bucket.bytes_ever());
        (self.seen.bytes_again, self.seen.bytes_again_most) = (again, self.lost_most);
        if again <= self.lost_most {
            return Ok(());
        }
        Err(format!("{again} bytes were moved again, and the kills may have cost {}", self.lost_most))
    }

    fn note(&mut self, what: &str) {
        self.history.push_str(what);
        self.history.push('\n');
    }
}

/// Ends a process that is in the middle of something, and looks how much of what it was sent it had not read.
fn end_measured(process: &ProcessHold, signal: Signal, port: u16) -> u64 {
    process.signal(Signal::STOP);
    process.wait_stopped();
    let unread = unread_bytes(port);
    process.signal(signal);
    process.signal(Signal::CONT);
    unread
}

/// What a run that ends here has sent for nothing at most, as the sockets tell the rest: of each connection's last answer
/// an extent, or all of a small object.
fn lost_most(gets: &[RecordedRequest], bucket: &Bucket) -> u64 {
    let sizes: BTreeMap<String, u64> = bucket.objects().into_iter().collect();
    let last: BTreeMap<u64, &RecordedRequest> = gets.iter().map(|get| (get.connection, get)).collect();
    let of_last = last.values().map(|get| {
        let path = get.key.as_deref().unwrap_or_default().trim_start_matches("m/");
        let is_small = sizes.get(path).is_none_or(|size_bytes| *size_bytes <= ONE_REQUEST_BYTES);
        let most = if is_small { get.bytes_sent } else { get.bytes_sent.min(EXTENT_BYTES) };
        most + SERVER_BUFFER_BYTES
    });
    of_last.sum()
}
