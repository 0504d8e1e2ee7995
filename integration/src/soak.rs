//! Many runs in a row, each of which may be struck by faults, killed, or both, and never a wrong byte.
//!
//! A soak is a number of episodes. An episode has a bucket and a volume of its own, and some runs on them; between two
//! runs, and during one, the bucket may change. The last run of an episode is left alone and has to complete the model.
//! After every run, however it ended, the whole volume is compared with the bucket:
//!
//! - whatever has a final name is, byte for byte, some version that the bucket has had;
//! - a run that says that it succeeded has the current version of every object in its place, and left nothing of ours;
//! - a run that says that it failed was struck by what its exit code says;
//! - a killed run costs its successor the extents and the small objects that were under way, and nothing else.
//!
//! Everything is drawn from one seed: the same seed gives the same buckets, faults and kills. How far a run has come
//! when the server has sent so many bytes is up to the machine.

mod bucket;
mod chance;
mod episode;
mod trouble;

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use chance::Chance;

/// A soak before it runs.
#[derive(Debug, Clone, Copy)]
pub struct Soak {
    /// What everything is drawn from.
    pub seed: u64,
    /// How many runs there are at least; the last episode is played to its end.
    pub runs: usize,
    /// How many episodes are played at a time. They wait more than they work.
    pub at_a_time: usize,
}

/// What a soak has seen.
#[derive(Debug, Default, Clone, Copy)]
pub struct Seen {
    /// Runs.
    pub runs: u64,
    /// Of those, the ones that ended with a model in place.
    pub completed: u64,
    /// Of those, the ones that were killed.
    pub killed: u64,
    /// Of those, the ones that were asked to end.
    pub terminated: u64,
    /// Of those, the ones that failed, as they had to.
    pub failed: u64,
    /// How often a fault struck.
    pub faults: u64,
    /// Bytes of objects that were sent.
    pub bytes: u64,
    /// Bytes of objects that were sent more than once, in the episodes without faults.
    pub bytes_again: u64,
    /// What those might have been at most.
    pub bytes_again_most: u64,
}

impl Soak {
    /// Plays all episodes. Panics, with what reproduces it, where a promise is broken.
    pub fn run(self) -> Seen {
        println!("soak: seed {}, {} runs", self.seed, self.runs);
        let mut lengths = Vec::new();
        while lengths.iter().sum::<usize>() < self.runs {
            lengths.push(episode::runs(self.chance(lengths.len())));
        }
        let next = AtomicUsize::new(0);
        let seen = Mutex::new(Seen::default());
        std::thread::scope(|scope| {
            for _ in 0..self.at_a_time {
                scope.spawn(|| {
                    loop {
                        let number = next.fetch_add(1, Ordering::Relaxed);
                        if number >= lengths.len() {
                            return;
                        }
                        let episode = format!("episode {number} of seed {}", self.seed);
                        let of_episode = episode::play(&episode, self.chance(number));
                        seen.lock().unwrap_or_else(|poison| poison.into_inner()).add(&of_episode);
                    }
                });
            }
        });
        let seen = *seen.lock().unwrap_or_else(|poison| poison.into_inner());
        println!("soak: seed {}: {seen:?}", self.seed);
        seen
    }

    /// Plays one episode of the soak, the one that failed.
    pub fn run_episode(self, number: usize) -> Seen {
        episode::play(&format!("episode {number} of seed {}", self.seed), self.chance(number))
    }

    fn chance(&self, episode: usize) -> Chance {
        Chance::new(self.seed.wrapping_mul(1_000_003).wrapping_add(episode as u64))
    }
}

impl Seen {
    fn add(&mut self, other: &Self) {
        let Self { runs, completed, killed, terminated, failed, faults, bytes, bytes_again, bytes_again_most } = other;
        self.runs += runs;
        self.completed += completed;
        self.killed += killed;
        self.terminated += terminated;
        self.failed += failed;
        self.faults += faults;
        self.bytes += bytes;
        self.bytes_again += bytes_again;
        self.bytes_again_most += bytes_again_most;
    }
}
