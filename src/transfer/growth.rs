//! How many connections are worth having: more, as long as that makes the transfer faster.
//!
//! One S3 stream gives some 90 MB/s, so a distant store wants many. A near one fills the cores with a few, and each
//! more only costs processor time and memory. Nobody can tell beforehand which it is, so it is tried: another few
//! connections are kept if the rate of the next interval is clearly higher, and given back if it is not.

use std::time::Duration;

use super::queue::Load;

/// How long a number of connections is tried. Long enough to see through the jitter of a range's beginning and end,
/// short enough that a transfer of some seconds profits.
pub(super) const INTERVAL: Duration = Duration::from_millis(200);

/// A step is kept where the rate rises by a third of what the added connections could have brought.
const WORTH: f64 = 1.0 / 3.0;

/// After a step that was not worth it, the next one is tried so many intervals later.
const REST: u32 = 10;

/// The search for the number of connections.
#[derive(Debug)]
pub(super) struct Growth {
    most: usize,
    /// The number and the rate before the step that is being tried.
    before: Option<(usize, f64)>,
    rest: u32,
}

impl Growth {
    pub(super) fn new(most: usize) -> Self {
        // The first interval has the handshakes in it, and tells nothing.
        Self { most, before: None, rest: 1 }
    }

    /// How many connections to have after an interval in which so many bytes came.
    pub(super) fn next(&mut self, load: Load, bytes: u64) -> usize {
        let rate = bytes as f64;
        let limit = load.limit;
        if load.was_throttled || !load.has_more || bytes == 0 {
            // The store's word counts more than the rate; without work, or while it stalls, nothing is to be learnt.
            self.before = None;
            return limit;
        }
        if let Some((number, rate_before)) = self.before.take() {
            let possible = limit as f64 / number as f64;
            if rate < rate_before * (1.0 + (possible - 1.0) * WORTH) {
                self.rest = REST;
                return number;
            }
        }
        if self.rest > 0 {
            self.rest -= 1;
            return limit;
        }
        let next = (limit + limit.div_ceil(2)).min(self.most);
        if next > limit {
            self.before = Some((limit, rate));
        }
        next
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Lets a transfer run whose rate is a function of its connections; the numbers of connections it tries.
    fn grow(most: usize, intervals: usize, rate: impl Fn(usize) -> u64) -> Vec<usize> {
        let mut growth = Growth::new(most);
        let mut limit = 4;
        let mut seen = Vec::new();
        for _ in 0..intervals {
            limit = growth.next(Load { limit, has_more: true, was_throttled: false }, rate(limit));
            seen.push(limit);
        }
        seen
    }

    #[test]
    fn a_distant_store_gets_all_connections() {
        assert_eq!(grow(64, 8, |connections| connections as u64 * 90), [4, 6, 9, 14, 21, 32, 48, 64]);
    }

    #[test]
    fn a_near_store_keeps_the_few_that_fill_the_cores() {
        let seen = grow(64, 14, |_| 1000);
        assert_eq!(seen[..3], [4, 6, 4]);
        assert_eq!(seen[3..13], [4; 10]);
        assert_eq!(seen[13], 6, "it is tried again later");
    }

    #[test]
    fn without_work_after_a_slow_down_or_in_a_stall_nothing_grows() {
        let mut growth = Growth::new(64);
        for (has_more, was_throttled, bytes) in [(false, false, 1000), (true, true, 1000), (true, false, 0)] {
            for _ in 0..5 {
                assert_eq!(growth.next(Load { limit: 4, has_more, was_throttled }, bytes), 4);
            }
        }
    }
}
