//! When to try again, and when to give up.
//!
//! Owns the waits between attempts: full jitter over a doubling window, a later start where the store asks to slow
//! down, a store's own `Retry-After` within bounds, and an end. Promises that every series of failures ends, by
//! attempts or by time, and that no wait is longer than [`Policy::longest_wait`]. It neither sleeps, reads a clock nor
//! draws a random number: the caller brings all three. Which errors are worth another attempt is left to `s3::error`.
//!
//! The jitter is "full" for the reason that <https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/>
//! measures: of all kinds it needs the least work to untangle clients that failed together, and here every range of
//! every replica fails together.

use std::time::Duration;

/// The bounds of a series of attempts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// How many attempts may fail in a row; the last failure is final. Zero counts as one.
    pub attempts: u32,
    /// How long a series without progress may take. No wait is begun that would end later.
    pub patience: Duration,
    /// The window of the first wait after a broken connection, a timeout or a 5xx; each further one doubles it.
    pub first_window: Duration,
    /// The window of the first wait after 503 SlowDown or 429.
    pub first_window_throttled: Duration,
    /// What no window grows beyond.
    pub widest_window: Duration,
    /// What of a `Retry-After` is believed.
    pub longest_retry_after: Duration,
    /// How many bytes have to arrive for a series to count as ended. A floor, because a proxy that sends a few bytes
    /// and hangs up would otherwise be asked forever: with it, an object of n bytes has n / floor + 1 series at most.
    pub progress_bytes: u64,
}

impl Default for Policy {
    fn default() -> Policy {
        Policy {
            // Nine waits, 11 s on average and 21 s at most: a front end that is replaced, not an outage.
            attempts: 10,
            // Only timeouts and Retry-After get here: a few of the longest ones, then the pod's own restart is the better
            // back-off.
            patience: Duration::from_secs(180),
            // A broken connection is most often alone, and gone at once; a store that throttles needs the pause.
            first_window: Duration::from_millis(100),
            first_window_throttled: Duration::from_secs(1),
            widest_window: Duration::from_secs(5),
            longest_retry_after: Duration::from_secs(30),
            // Far more than one TCP window, far less than a range.
            progress_bytes: 1 << 20,
        }
    }
}

impl Policy {
    /// The longest wait that [`Backoff::next`] can return.
    pub fn longest_wait(&self) -> Duration {
        self.longest_retry_after.saturating_add(self.widest_window)
    }
}

/// What failed, as far as the wait is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A broken connection, a timeout, a 5xx.
    Transient,
    /// The store asks for fewer requests: 503 SlowDown, 429.
    Throttled,
}

/// One operation's attempts so far.
#[derive(Clone, Debug)]
pub struct Backoff {
    policy: Policy,
    failures: u32,
    fresh_bytes: u64,
    series_began: Duration,
}

impl Backoff {
    /// No attempt has failed yet.
    pub fn new(policy: Policy) -> Backoff {
        Backoff { policy, failures: 0, fresh_bytes: 0, series_began: Duration::ZERO }
    }

    /// An attempt has failed: how long to wait before the next one, or `None` to give up.
    ///
    /// `retry_after` is what the store asked for. `elapsed` is the time since the operation's first attempt began.
    /// `random` is a fresh number from [0, 1); anything else counts as the nearest bound.
    pub fn next(
        &mut self,
        kind: Kind,
        retry_after: Option<Duration>,
        elapsed: Duration,
        random: f64,
    ) -> Option<Duration> {
        let window = self.window(kind);
        self.failures = self.failures.saturating_add(1);
        if self.failures >= self.policy.attempts {
            return None;
        }
        // The jitter comes on top of what the store asked for: it told every client the same time.
        let asked = retry_after.unwrap_or_default().min(self.policy.longest_retry_after);
        let wait = asked.saturating_add(fraction_of(window, random));
        let patience_ends = self.series_began.saturating_add(self.policy.patience);
        (elapsed.saturating_add(wait) <= patience_ends).then_some(wait)
    }

    /// Bytes that had not been there before have arrived; `elapsed` as for [`Backoff::next`]. Once they amount to
    /// [`Policy::progress_bytes`], the attempts and the patience begin anew.
    pub fn progressed(&mut self, bytes: u64, elapsed: Duration) {
        self.fresh_bytes = self.fresh_bytes.saturating_add(bytes);
        if self.fresh_bytes >= self.policy.progress_bytes {
            self.failures = 0;
            self.fresh_bytes = 0;
            self.series_began = self.series_began.max(elapsed);
        }
    }

    /// How many attempts have failed since the last progress; for messages.
    pub fn failures(&self) -> u32 {
        self.failures
    }

    fn window(&self, kind: Kind) -> Duration {
        let first = match kind {
            Kind::Transient => self.policy.first_window,
            Kind::Throttled => self.policy.first_window_throttled,
        };
        let doublings = 2_u32.checked_pow(self.failures).unwrap_or(u32::MAX);
        first.saturating_mul(doublings).min(self.policy.widest_window)
    }
}

/// `window` times `random`, which is brought into [0, 1] first: a NaN or a huge factor would panic in `Duration`.
fn fraction_of(window: Duration, random: f64) -> Duration {
    let random = if random.is_nan() { 1.0 } else { random.clamp(0.0, 1.0) };
    window.mul_f64(random).min(window)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ALMOST_ONE: f64 = 1.0 - f64::EPSILON;

    fn millis(backoff: &mut Backoff, kind: Kind) -> Option<u128> {
        // Half a millisecond is added for the rounding of ALMOST_ONE.
        backoff.next(kind, None, Duration::ZERO, ALMOST_ONE).map(|wait| (wait.as_micros() + 500) / 1000)
    }

    #[test]
    fn the_window_doubles_up_to_the_widest() {
        let mut backoff = Backoff::new(Policy { attempts: 9, ..Policy::default() });
        let waits: Vec<_> = std::iter::from_fn(|| millis(&mut backoff, Kind::Transient)).collect();
        assert_eq!(waits, [100, 200, 400, 800, 1600, 3200, 5000, 5000]);
    }

    #[test]
    fn throttling_starts_from_a_wider_window() {
        let mut backoff = Backoff::new(Policy::default());
        assert_eq!(millis(&mut backoff, Kind::Throttled), Some(1000));
        assert_eq!(millis(&mut backoff, Kind::Throttled), Some(2000));
        assert_eq!(millis(&mut backoff, Kind::Transient), Some(400));
    }

    #[test]
    fn the_jitter_covers_the_whole_window() {
        let mut backoff = Backoff::new(Policy::default());
        assert_eq!(backoff.next(Kind::Transient, None, Duration::ZERO, 0.0), Some(Duration::ZERO));
        let mut backoff = Backoff::new(Policy::default());
        assert_eq!(backoff.next(Kind::Transient, None, Duration::ZERO, 0.5), Some(Duration::from_millis(50)));
    }

    #[test]
    fn the_last_attempt_is_final() {
        let mut two = Backoff::new(Policy { attempts: 2, ..Policy::default() });
        assert!(two.next(Kind::Transient, None, Duration::ZERO, 0.5).is_some());
        assert_eq!(two.next(Kind::Transient, None, Duration::ZERO, 0.5), None);
        let mut one = Backoff::new(Policy { attempts: 1, ..Policy::default() });
        assert_eq!(one.next(Kind::Transient, None, Duration::ZERO, 0.5), None);
    }

    #[test]
    fn no_wait_ends_after_the_patience() {
        let policy = Policy { patience: Duration::from_secs(10), ..Policy::default() };
        let at = |elapsed_millis| {
            Backoff::new(policy).next(Kind::Transient, None, Duration::from_millis(elapsed_millis), 1.0)
        };
        assert!(at(9_900).is_some());
        assert_eq!(at(9_901), None);
    }

    #[test]
    fn a_retry_after_is_a_floor_but_not_beyond_reason() {
        let wait = |seconds| {
            Backoff::new(Policy::default()).next(
                Kind::Throttled,
                Some(Duration::from_secs(seconds)),
                Duration::ZERO,
                0.5,
            )
        };
        assert_eq!(wait(2), Some(Duration::from_millis(2_500)));
        assert_eq!(wait(86_400), Some(Duration::from_millis(30_500)));
    }

    #[test]
    fn real_progress_begins_a_new_series_and_a_trickle_does_not() {
        let policy = Policy { attempts: 2, patience: Duration::from_secs(10), ..Policy::default() };
        let later = Duration::from_secs(100);
        let mut backoff = Backoff::new(policy);
        assert!(backoff.next(Kind::Transient, None, Duration::ZERO, 0.5).is_some());
        backoff.progressed(policy.progress_bytes, later);
        assert_eq!(backoff.failures(), 0);
        assert!(backoff.next(Kind::Transient, None, later, 0.5).is_some());

        let mut trickle = Backoff::new(policy);
        assert!(trickle.next(Kind::Transient, None, Duration::ZERO, 0.5).is_some());
        trickle.progressed(policy.progress_bytes - 1, later);
        assert_eq!(trickle.next(Kind::Transient, None, later, 0.5), None);
    }

    #[test]
    fn a_random_number_out_of_bounds_does_not_panic() {
        for random in [f64::NAN, f64::INFINITY, -1.0, 7.0] {
            let wait = Backoff::new(Policy::default()).next(Kind::Transient, None, Duration::ZERO, random);
            assert!(wait.is_some_and(|wait| wait <= Policy::default().first_window));
        }
    }

    fn duration() -> impl Strategy<Value = Duration> {
        prop_oneof![(0_u64..100_000).prop_map(Duration::from_millis), Just(Duration::MAX), Just(Duration::ZERO),]
    }

    prop_compose! {
        fn policy()(
            attempts in 0_u32..60,
            patience in duration(),
            first_window in duration(),
            first_window_throttled in duration(),
            widest_window in duration(),
            longest_retry_after in duration(),
            progress_bytes: u64,
        ) -> Policy {
            Policy {
                attempts, patience, first_window, first_window_throttled, widest_window, longest_retry_after, progress_bytes,
            }
        }
    }

    proptest! {
        #[test]
        fn every_wait_is_bounded_and_every_series_ends(
            policy in policy(),
            throttled: bool,
            retry_after in proptest::option::of(duration()),
            random in 0.0..1.0,
        ) {
            let kind = if throttled { Kind::Throttled } else { Kind::Transient };
            let mut backoff = Backoff::new(policy);
            let mut elapsed = Duration::ZERO;
            let mut waits = 0;
            while let Some(wait) = backoff.next(kind, retry_after, elapsed, random) {
                prop_assert!(wait <= policy.longest_wait());
                prop_assert!(wait >= retry_after.unwrap_or_default().min(policy.longest_retry_after));
                elapsed = elapsed.saturating_add(wait);
                prop_assert!(elapsed <= policy.patience);
                waits += 1;
                prop_assert!(waits < policy.attempts);
            }
        }

        #[test]
        fn a_longer_draw_never_waits_shorter(policy in policy(), low in 0.0..1.0, high in 0.0..1.0) {
            prop_assume!(low <= high);
            let wait = |random| Backoff::new(policy).next(Kind::Transient, None, Duration::ZERO, random);
            if let (Some(short), Some(long)) = (wait(low), wait(high)) {
                prop_assert!(short <= long);
            }
        }
    }
}
