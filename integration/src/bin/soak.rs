//! `just soak [RUNS [SEED [EPISODE]]]`: the long version of `tests/soak.rs`, from another seed each time.

#![allow(clippy::expect_used, reason = "an argument that is no number ends the program")]

use std::time::{SystemTime, UNIX_EPOCH};

use storage_initializer_integration::soak::Soak;

fn main() {
    let numbers: Vec<u64> = std::env::args().skip(1).map(|number| number.parse().expect("a number")).collect();
    let now = || SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
    let runs = numbers.first().map_or(500, |runs| *runs as usize);
    let soak = Soak { seed: numbers.get(1).copied().unwrap_or_else(now), runs, at_a_time: 4 };
    match numbers.get(2) {
        Some(episode) => println!("{:?}", soak.run_episode(*episode as usize)),
        None => drop(soak.run()),
    }
}
