//! How many connections are worth having: more, as long as that makes the transfer faster.
//!
//! One S3 stream gives some 90 MB/s, so a distant store wants many. A near one fills the cores with a few, and each
//! more only costs processor time and memory. The time to an answer says which of both is likely: a distant store gets
//! several times more at once, by its answers to the listing and heads, or else by the first byte. From there on twice
//! as many are tried again and again, kept if the rate is clearly higher with them, and given back if it is not. New
//! connections need as long for their first byte as the first ones did, and so long does a trial go on before it
//! counts.

use std::time::Duration;

use super::queue::Load;

/// How often the rate is looked at.
pub(super) const TICK: Duration = Duration::from_millis(50);

/// How many times more connections a store gets at once whose first byte takes longer than a tick: the first, with what has
/// to be asked before it, takes that long from 25 ms on. Trials would take half a second, and use it by half.
const DISTANT: usize = 4;

/// A store that takes longer for its fastest answer is distant. What is near has a handshake and a page of a listing ready
/// in a third of it.
const DISTANT_ANSWER: Duration = Duration::from_millis(25);

/// The shortest trial, in ticks: long enough to see through the jitter of a range's beginning and end, short enough that a
/// transfer of a second or two profits.
const SHORTEST_TRIAL: u32 = 2;

/// The longest, in ticks: a store that takes its time with the first byte shall not keep the rest waiting.
const LONGEST_TRIAL: u32 = 20;

/// A step is kept where the rate rises by a third of what the added connections could have brought.
const WORTH: f64 = 1.0 / 3.0;

/// After a step that was not worth it, the next one is tried so many trials later; after the second, twice as many.
const SHORTEST_REST: u32 = 10;

/// A store may become slower in the course of an hour.
const LONGEST_REST: u32 = 160;

/// How many connections to begin with, of `few` that fill the cores and the `most` that the container bears: more with a
/// store whose fastest answer took long, and where they wait for the disk as often as for the network.
pub(super) fn at_first(few: usize, most: usize, answer: Option<Duration>, waits_for_disk: bool) -> usize {
    let is_distant = answer.is_some_and(|answer| answer > DISTANT_ANSWER);
    let times = if is_distant { DISTANT } else { 1 + usize::from(waits_for_disk) };
    (times * few).min(most)
}

/// The search for the number of connections.
#[derive(Debug)]
pub(super) struct Growth {
    most: usize,
    /// Ticks without a byte, until the first came.
    waited: u32,
    /// In ticks; known with the first byte.
    trial: Option<u32>,
    ticks: u32,
    bytes: u64,
    /// The number and the rate before the step that is being tried.
    before: Option<(usize, f64)>,
    rest: u32,
    next_rest: u32,
}

impl Growth {
    pub(super) fn new(most: usize) -> Self {
        Self { most, waited: 0, trial: None, ticks: 0, bytes: 0, before: None, rest: 0, next_rest: SHORTEST_REST }
    }

    /// How many connections to have after a tick in which so many bytes came.
    pub(super) fn next(&mut self, load: Load, bytes: u64) -> usize {
        let limit = load.limit;
        if load.was_throttled || !load.has_more {
            // The store's word counts more than the rate; without work nothing is to be learnt.
            (self.ticks, self.bytes, self.before) = (0, 0, None);
            return limit;
        }
        let Some(trial) = self.trial else {
            // The tick of the first byte has the handshakes in it, and tells nothing else.
            self.waited += 1;
            if bytes == 0 {
                return limit;
            }
            self.trial = Some((2 * self.waited).clamp(SHORTEST_TRIAL, LONGEST_TRIAL));
            return if self.waited > 1 { (DISTANT * limit).min(self.most) } else { limit };
        };
        self.ticks += 1;
        self.bytes += bytes;
        if self.ticks < trial {
            return limit;
        }
        let rate = self.bytes as f64;
        (self.ticks, self.bytes) = (0, 0);
        if rate == 0.0 {
            // It stalls, and not for want of connections.
            self.before = None;
            return limit;
        }
        if let Some((number, rate_before)) = self.before.take() {
            let possible = limit as f64 / number as f64;
            if rate < rate_before * (1.0 + (possible - 1.0) * WORTH) {
                self.rest = self.next_rest;
                self.next_rest = (2 * self.next_rest).min(LONGEST_REST);
                return number;
            }
            self.next_rest = SHORTEST_REST;
        }
        if self.rest > 0 {
            self.rest -= 1;
            return limit;
        }
        let next = (2 * limit).min(self.most);
        if next > limit {
            self.before = Some((limit, rate));
        }
        next
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Lets a transfer run whose rate is a function of its connections, with so many ticks before the first byte; the
    /// numbers of connections after each tick.
    fn grow(ticks: usize, first_byte: usize, rate: impl Fn(usize) -> u64) -> Vec<usize> {
        let mut growth = Growth::new(64);
        let mut limit = 4;
        (0..ticks)
            .map(|tick| {
                let bytes = if tick < first_byte { 0 } else { rate(limit) };
                limit = growth.next(Load { limit, has_more: true, was_throttled: false }, bytes);
                limit
            })
            .collect()
    }

    #[test]
    fn a_store_that_answers_late_gets_more_connections_before_its_first_byte() {
        let with = |milliseconds, most, disk| at_first(4, most, Some(Duration::from_millis(milliseconds)), disk);
        assert_eq!([with(26, 64, false), with(24, 64, false), with(26, 8, false)], [16, 4, 8]);
        assert_eq!([with(24, 64, true), with(26, 64, true), at_first(4, 64, None, false)], [8, 16, 4]);
    }

    #[test]
    fn a_distant_store_gets_several_times_more_with_its_first_byte_and_then_twice_as_many() {
        let seen = grow(10, 1, |connections| connections as u64 * 90);
        assert_eq!(seen, [4, 16, 16, 16, 16, 32, 32, 32, 32, 64], "two ticks for the first byte, four for a trial");
    }

    #[test]
    fn a_trial_has_a_second_at_most() {
        let seen = grow(51, 30, |connections| connections as u64 * 90);
        assert_eq!(seen[29..31], [4, 16]);
        assert_eq!(seen[49..], [16, 32]);
    }

    #[test]
    fn a_near_store_that_gives_more_on_more_connections_gets_them_step_by_step() {
        let seen = grow(9, 0, |connections| connections as u64 * 90);
        assert_eq!(seen, [4, 4, 8, 8, 16, 16, 32, 32, 64]);
    }

    #[test]
    fn a_near_store_keeps_the_few_that_fill_the_cores_and_is_asked_ever_more_seldom() {
        let seen = grow(90, 0, |_| 1000);
        let tried: Vec<usize> = (1..seen.len()).filter(|&tick| seen[tick] > seen[tick - 1]).collect();
        assert_eq!(tried, [2, 26, 70]);
        assert_eq!(seen.iter().filter(|&&connections| connections > 4).count(), 6, "each trial has two ticks");
    }

    #[test]
    fn without_work_after_a_slow_down_or_in_a_stall_nothing_grows() {
        for (has_more, was_throttled, bytes) in [(false, false, 1000), (true, true, 1000), (true, false, 0)] {
            let mut growth = Growth::new(64);
            growth.trial = Some(SHORTEST_TRIAL);
            for _ in 0..5 {
                assert_eq!(growth.next(Load { limit: 4, has_more, was_throttled }, bytes), 4);
            }
        }
    }
}
