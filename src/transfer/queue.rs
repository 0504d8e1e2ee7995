//! What is to be done next, and by how many at a time.
//!
//! Workers are threads that ask here for work and wait where there is none. What has begun goes first, so that a killed
//! process leaves few objects half done; then the largest object, so that the small ones fill the gaps at the end. Whoever
//! finds nothing takes over a half of what the slowest connection has to do. How many workers may be busy at once is a
//! number that changes while the transfer runs: it grows while that makes it faster, and shrinks where the store asks for
//! it.

use std::{
    cmp::Ordering,
    collections::{BinaryHeap, VecDeque},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tokio::sync::Notify;

use super::{SPLIT_ABOVE_BYTES, TransferError, object::Object};
use crate::{plan::PlannedFile, ranges::ByteRange, units::MIB, volume::Presence};

/// The shortest range that an object is cut into. Shorter ones are more requests for nothing.
pub(super) const LEAST_RANGE_BYTES: u64 = 8 * MIB;

/// The longest: at 90 MB/s, which one S3 stream gives, the 30 ms to a first byte are 2 % of it. Longer ones would not hide
/// them any better, and the end of a transfer would wait for one slow connection.
const MOST_RANGE_BYTES: u64 = 128 * MIB;

/// A range is shared if it takes longer than this: then its connection crawls. What is under way on it is lost with it, so a
/// range that is only somewhat later than others is left alone.
const SHARE_ABOVE: Duration = Duration::from_secs(5);

/// How often a worker without work looks whether there is something to share: a connection becomes slow without telling.
const SHARE_TICK: Duration = Duration::from_millis(250);

/// How often the store's "slow down" counts: all connections hear it at the same moment.
const THROTTLE_PAUSE: Duration = Duration::from_secs(1);

/// How long a stop waits for workers; one that waits for the network does not notice any sooner.
const STOP_PATIENCE: Duration = Duration::from_millis(300);

/// Something for a worker to do.
#[derive(Debug)]
pub(super) enum Work {
    /// An object that nobody has begun, or that has to be begun again.
    Begin(Start),
    /// A range of an object that has been begun.
    Range(Arc<Object>, ByteRange),
}

/// An object that waits for its turn.
#[derive(Debug)]
pub(super) struct Start {
    pub(super) file: Arc<PlannedFile>,
    /// The how manieth start it is, from 1 on.
    pub(super) number: u32,
    /// What is under its final name.
    pub(super) presence: Presence,
    /// Its size as far as it is known: large ones go first.
    pub(super) size_bytes: u64,
}

impl Start {
    /// What several connections may fetch.
    fn shared_bytes(&self) -> u64 {
        if self.size_bytes > SPLIT_ABOVE_BYTES { self.size_bytes } else { 0 }
    }
}

impl PartialEq for Start {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Start {}

impl PartialOrd for Start {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Start {
    fn cmp(&self, other: &Self) -> Ordering {
        self.size_bytes.cmp(&other.size_bytes)
    }
}

/// The work of one transfer.
#[derive(Debug)]
pub(super) struct Queue {
    state: Mutex<State>,
    changed: Condvar,
    /// Told once when nothing is left to do, or something failed.
    ended: Notify,
}

#[derive(Debug)]
struct State {
    waiting: BinaryHeap<Start>,
    waiting_bytes: u64,
    /// Of large objects whose ranges cannot be asked for yet.
    beginning_bytes: u64,
    /// Objects with bytes that nobody has asked for.
    open: VecDeque<Arc<Object>>,
    /// Objects all of whose bytes have been asked for, and some are under way.
    asked: Vec<Arc<Object>>,
    /// How long the store needs for an answer.
    answer: Duration,
    /// How many objects have begun and not ended.
    begun: usize,
    most_begun: usize,
    busy: usize,
    limit: usize,
    throttled: Option<Instant>,
    is_complete: bool,
    is_stopped: bool,
    failure: Option<TransferError>,
}

impl State {
    fn is_over(&self) -> bool {
        self.is_stopped || (self.is_complete && self.waiting.is_empty() && self.begun == 0)
    }

    /// Whether there is work that nobody has taken or that can be shared, and more workers could take.
    fn has_more(&self) -> bool {
        !self.open.is_empty()
            || (!self.waiting.is_empty() && self.begun < self.most_begun)
            || self.slowest().is_some_and(|(expected, _)| expected > SHARE_ABOVE)
    }

    /// The object with the range that takes longest, of those that can be shared.
    fn slowest(&self) -> Option<(Duration, &Arc<Object>)> {
        let expected = self.asked.iter().filter_map(|object| Some((object.expected()?, object)));
        expected.max_by_key(|(expected, _)| *expected)
    }

    /// Whether a worker that finds nothing may find something later that nobody tells it of.
    fn may_share_later(&self) -> bool {
        self.busy < self.limit && !self.asked.is_empty()
    }

    fn take(&mut self) -> Option<Work> {
        if self.busy >= self.limit {
            return None;
        }
        let all = self.open.iter().chain(&self.asked);
        let left = all.map(|object| object.left_bytes()).sum::<u64>() + self.beginning_bytes + self.waiting_bytes;
        // Everybody's share of what has not come: fewer requests, each with a first byte to wait for, and all are done at
        // about the same time.
        let share = left / self.limit as u64;
        while let Some(object) = self.open.pop_front() {
            let taken = object.take(share.clamp(LEAST_RANGE_BYTES, MOST_RANGE_BYTES), self.answer);
            if object.has_gaps() {
                // Another file's turn: writers of one file wait for each other.
                self.open.push_back(Arc::clone(&object));
            } else {
                // Each holds its file open.
                self.asked.retain(|object| object.is_under_way());
                self.asked.push(Arc::clone(&object));
            }
            let Some(range) = taken else { continue };
            self.busy += 1;
            return Some(Work::Range(object, range));
        }
        self.begin().or_else(|| self.share())
    }

    fn begin(&mut self) -> Option<Work> {
        if self.begun >= self.most_begun {
            return None;
        }
        let start = self.waiting.pop()?;
        self.waiting_bytes -= start.size_bytes;
        self.beginning_bytes += start.shared_bytes();
        self.begun += 1;
        self.busy += 1;
        Some(Work::Begin(start))
    }

    fn share(&mut self) -> Option<Work> {
        self.asked.retain(|object| object.is_under_way());
        let (_, object) = self.slowest()?;
        let object = Arc::clone(object);
        let range = object.share(SHARE_ABOVE, self.answer)?;
        self.busy += 1;
        Some(Work::Range(object, range))
    }
}

impl Queue {
    pub(super) fn new(limit: usize, most_begun: usize) -> Self {
        Self {
            state: Mutex::new(State {
                waiting: BinaryHeap::new(),
                waiting_bytes: 0,
                beginning_bytes: 0,
                open: VecDeque::new(),
                asked: Vec::new(),
                answer: Duration::ZERO,
                begun: 0,
                most_begun,
                busy: 0,
                limit,
                throttled: None,
                is_complete: false,
                is_stopped: false,
                failure: None,
            }),
            changed: Condvar::new(),
            ended: Notify::new(),
        }
    }

    /// Waits for something to do; `None` when there will be nothing more. Whoever gets something calls
    /// [`Queue::done`] when it is done.
    pub(super) fn next(&self) -> Option<Work> {
        let mut state = self.state();
        loop {
            if state.is_over() {
                return None;
            }
            if let Some(work) = state.take() {
                return Some(work);
            }
            state = if state.may_share_later() {
                self.changed.wait_timeout(state, SHARE_TICK).unwrap_or_else(PoisonError::into_inner).0
            } else {
                self.changed.wait(state).unwrap_or_else(PoisonError::into_inner)
            };
        }
    }

    /// A worker has done what it got.
    pub(super) fn done(&self) {
        let mut state = self.state();
        state.busy -= 1;
        if state.is_stopped && state.busy == 0 {
            self.changed.notify_all();
        }
    }

    /// Adds objects that nobody has begun.
    pub(super) fn add(&self, starts: impl IntoIterator<Item = Start>) {
        let mut state = self.state();
        for start in starts {
            state.waiting_bytes += start.size_bytes;
            state.waiting.push(start);
        }
        self.changed.notify_all();
    }

    /// Of an object that begins; dropped when its ranges can be asked for, or will not be.
    pub(super) fn beginning(&self, start: &Start) -> Beginning<'_> {
        Beginning { queue: self, bytes: start.shared_bytes() }
    }

    /// An object that has begun has ranges to ask for.
    pub(super) fn open(&self, object: Arc<Object>, beginning: Beginning<'_>) {
        self.state().open.push_back(object);
        drop(beginning);
        self.changed.notify_all();
    }

    /// An object that has begun has to be begun again.
    pub(super) fn again(&self, start: Start) {
        let mut state = self.state();
        state.begun -= 1;
        state.waiting_bytes += start.size_bytes;
        state.waiting.push(start);
        self.changed.notify_all();
    }

    /// An object that has begun is in its place.
    pub(super) fn finished(&self) {
        let mut state = self.state();
        state.begun -= 1;
        self.tell_the_end(&state);
    }

    /// No object will be added any more.
    pub(super) fn complete(&self) {
        let mut state = self.state();
        state.is_complete = true;
        self.tell_the_end(&state);
    }

    /// Ends everything with this error, unless another one was faster.
    pub(super) fn fail(&self, failure: TransferError) {
        let mut state = self.state();
        state.failure.get_or_insert(failure);
        state.is_stopped = true;
        self.tell_the_end(&state);
    }

    /// Ends everything where it stands, and waits a moment for workers to notice, so that none of them makes a partial
    /// after whoever stops them has cleaned up.
    pub(super) fn stop(&self) {
        let mut state = self.state();
        state.is_stopped = true;
        self.tell_the_end(&state);
        let until = Instant::now() + STOP_PATIENCE;
        while state.busy > 0 {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn tell_the_end(&self, state: &State) {
        if state.is_over() {
            self.changed.notify_all();
            self.ended.notify_one();
        }
    }

    /// Resolves when nothing is left to do.
    ///
    /// # Errors
    ///
    /// The first failure.
    pub(super) async fn ended(&self) -> Result<(), TransferError> {
        loop {
            {
                let mut state = self.state();
                if let Some(failure) = state.failure.take() {
                    return Err(failure);
                }
                if state.is_over() {
                    return Ok(());
                }
            }
            self.ended.notified().await;
        }
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.state().is_stopped
    }

    /// Waits so long, or until everything ends; whether it has.
    pub(super) fn pause(&self, wait: Duration) -> bool {
        let until = Instant::now() + wait;
        let mut state = self.state();
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if state.is_stopped || left.is_zero() {
                return state.is_stopped;
            }
            state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// The store asks to be asked less: half as many at a time.
    pub(super) fn throttled(&self) {
        let mut state = self.state();
        if state.throttled.is_none_or(|at| at.elapsed() >= THROTTLE_PAUSE) {
            state.throttled = Some(Instant::now());
            state.limit = (state.limit / 2).max(1);
        }
    }

    /// How many may be busy at once, and whether more could be.
    pub(super) fn load(&self) -> Load {
        let state = self.state();
        let was_throttled = state.throttled.is_some_and(|at| at.elapsed() < THROTTLE_PAUSE * 10);
        Load { limit: state.limit, has_more: state.has_more(), was_throttled }
    }

    /// So many may be busy at once at first, and the store needs so long for an answer.
    pub(super) fn begin(&self, limit: usize, answer: Duration) {
        let mut state = self.state();
        state.limit = limit;
        state.answer = answer;
    }

    /// From now on so many may be busy at once.
    pub(super) fn limit(&self, limit: usize) {
        self.state().limit = limit;
        self.changed.notify_all();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The bytes of a large object that begins: they count when what is left is shared out.
pub(super) struct Beginning<'a> {
    queue: &'a Queue,
    bytes: u64,
}

impl Drop for Beginning<'_> {
    fn drop(&mut self) {
        self.queue.state().beginning_bytes -= self.bytes;
    }
}

/// How busy the workers are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Load {
    /// How many may be busy at once.
    pub(super) limit: usize,
    /// Whether there is work for more of them.
    pub(super) has_more: bool,
    /// Whether the store has asked to be asked less not long ago.
    pub(super) was_throttled: bool,
}
