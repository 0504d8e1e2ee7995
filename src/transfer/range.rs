//! One range from the store to the volume, across as many connections as it takes.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::time::{Sleep, sleep};

use super::{Failed, Fetch, full_object, writer::Writer};
use crate::{
    checksum::{Checksum, RangeChecksum, Running},
    plan::PlannedFile,
    ranges::ByteRange,
    retry::Backoff,
    s3::{Attempt, Body, Get, ObjectHead},
};

/// A body slower than this is stalled. A kilobyte a second is no transfer, on any network.
const LEAST_BYTES_PER_SECOND: u64 = 1024;

/// How often other bytes may come than those that were asked for. It is a proxy's or a store's
/// habit, and seldom passes; the minute that an unreachable store is given would be wasted on it.
const MAX_WRONG_ANSWERS: u32 = 3;

/// The state of an object that its bytes are read from.
#[derive(Clone, Debug)]
pub(super) struct Version {
    pub(super) bucket: Arc<str>,
    pub(super) key: String,
    pub(super) etag: Option<String>,
    pub(super) version: Option<String>,
    pub(super) size_bytes: u64,
}

impl Version {
    pub(super) fn planned(file: &PlannedFile) -> Self {
        Self {
            bucket: Arc::clone(&file.bucket),
            key: file.object.key.clone(),
            etag: file.object.etag.clone(),
            version: file.head.as_ref().and_then(|head| head.version.clone()),
            size_bytes: file.object.size_bytes,
        }
    }

    /// The state that a new head tells of.
    pub(super) fn adopt(&mut self, head: &ObjectHead) {
        self.etag.clone_from(&head.object.etag);
        self.version.clone_from(&head.version);
        self.size_bytes = head.object.size_bytes;
    }
}

/// What is left of a range, and what has arrived of it.
#[derive(Debug)]
pub(super) struct RangeStream<'a> {
    fetch: &'a Fetch,
    range: ByteRange,
    /// The whole object is asked for, so the answer brings its checksum.
    is_whole: bool,
    arrived_bytes: u64,
    /// What the whole object should add up to, once known.
    pub(super) expected: Option<Checksum>,
    running: Option<Running>,
    pub(super) writer: Writer,
    backoff: Backoff,
    wrong_answers: u32,
    started: Instant,
}

impl<'a> RangeStream<'a> {
    /// A small object in one request.
    pub(super) fn of_whole(fetch: &'a Fetch, whole: ByteRange) -> Self {
        Self::new(fetch, whole, true)
    }

    /// A range of an object whose checksum a head has told.
    pub(super) fn of_range(fetch: &'a Fetch, range: ByteRange) -> Self {
        Self::new(fetch, range, false)
    }

    fn new(fetch: &'a Fetch, range: ByteRange, is_whole: bool) -> Self {
        let expected = fetch.expected;
        Self {
            fetch,
            range,
            is_whole,
            arrived_bytes: 0,
            expected,
            running: expected.map(|expected| Running::new(expected.algorithm())),
            writer: Writer::new(Arc::clone(&fetch.target), Arc::clone(&fetch.engine.buffers), range),
            backoff: Backoff::new(fetch.engine.store.policy()),
            wrong_answers: 0,
            started: Instant::now(),
        }
    }

    /// The checksum of what has arrived, where there is one to compare it with.
    pub(super) fn checksum(&self) -> Option<RangeChecksum> {
        self.running.as_ref().map(Running::finish)
    }

    /// Receives the whole range. A connection that breaks is replaced, and the range continues
    /// where it broke.
    pub(super) async fn receive(&mut self) -> Result<(), Failed> {
        while let Some(rest) = self.range.after(self.arrived_bytes) {
            let attempt = match self.attempt(rest).await {
                Ok(()) => continue,
                Err(Ended::Attempt(attempt)) => attempt,
                Err(Ended::Failed(failed)) => return Err(failed),
            };
            if attempt.is_changed() {
                return Err(Failed::Changed);
            }
            self.wrong_answers += u32::from(attempt.is_wrong_bytes());
            let elapsed = self.started.elapsed();
            let wait = attempt.wait(&mut self.backoff, elapsed).filter(|_| self.wrong_answers < MAX_WRONG_ANSWERS);
            let Some(wait) = wait else {
                let attempts = self.backoff.failures().max(1);
                let get = self.get(Some(rest));
                return Err(self.fetch.engine.store.give_up(attempt, get, attempts, elapsed).into());
            };
            self.say(&attempt, wait);
            self.fetch.engine.progress.retried();
            tokio::time::sleep(wait).await;
        }
        Ok(())
    }

    fn get(&self, range: Option<ByteRange>) -> Get<'a> {
        let version = &self.fetch.version;
        Get {
            bucket: &version.bucket,
            key: &version.key,
            etag: version.etag.as_deref(),
            version: version.version.as_deref(),
            size_bytes: version.size_bytes,
            range,
        }
    }

    /// The first break of a range is everyday; one that keeps breaking is worth a line.
    fn say(&self, attempt: &Attempt, wait: Duration) {
        let key = &self.fetch.version.key;
        if self.backoff.failures() == 3 {
            tracing::warn!(key, "the range {} keeps failing: {attempt}; trying on", self.range);
        } else {
            tracing::debug!(key, "range {}: {attempt}; trying again in {wait:?}", self.range);
        }
    }

    async fn attempt(&mut self, rest: ByteRange) -> Result<(), Ended> {
        let asks_for_whole = self.is_whole && self.arrived_bytes == 0;
        let get = self.get((!asks_for_whole).then_some(rest));
        let mut body = self.fetch.engine.store.get(get).await.map_err(Ended::Attempt)?;
        if asks_for_whole {
            // Nothing has arrived yet, so the digest begins anew.
            self.expected = full_object(body.checksum).or(self.fetch.expected);
            self.running = self.expected.map(|expected| Running::new(expected.algorithm()));
        }
        self.drain(&mut body).await
    }

    async fn drain(&mut self, body: &mut Body) -> Result<(), Ended> {
        let window = self.fetch.engine.stall_timeout;
        let least = (window.as_secs_f64() * LEAST_BYTES_PER_SECOND as f64) as u64;
        let mut window_began_at = self.arrived_bytes;
        let mut window_end = Box::pin(sleep(window));
        loop {
            let bytes = match next_or_tick(body, window_end.as_mut()).await {
                // All is there; a server that does not end its answer is not waited for.
                Next::Tick if self.left() == 0 => return Ok(()),
                Next::Tick if self.arrived_bytes - window_began_at < least.min(self.left()) => {
                    let cause = format!(
                        "only {} bytes arrived within {} s",
                        self.arrived_bytes - window_began_at,
                        window.as_secs_f32()
                    );
                    return Err(Ended::Attempt(Attempt::broken(cause)));
                }
                Next::Tick => {
                    window_began_at = self.arrived_bytes;
                    window_end.set(sleep(window));
                    continue;
                }
                Next::Body(Ok(Some(bytes))) => bytes,
                Next::Body(Ok(None)) if self.left() == 0 => return Ok(()),
                Next::Body(Ok(None)) => {
                    let cause = format!("the body ended {} bytes early", self.left());
                    return Err(Ended::Attempt(Attempt::broken(cause)));
                }
                Next::Body(Err(attempt)) => return Err(Ended::Attempt(attempt)),
            };
            let length = bytes.len() as u64;
            if length > self.left() {
                let finding = "more bytes arrived than were asked for".to_owned();
                return Err(Ended::Attempt(Attempt::wrong_bytes(finding)));
            }
            if let Some(running) = &mut self.running {
                running.update(&bytes);
            }
            self.arrived_bytes += length;
            self.fetch.count(length);
            self.backoff.progressed(length, self.started.elapsed());
            self.writer.push(&bytes).await.map_err(|error| Ended::Failed(error.into()))?;
        }
    }

    fn left(&self) -> u64 {
        self.range.len_bytes() - self.arrived_bytes
    }
}

/// How one connection's share of a range ended.
enum Ended {
    /// It broke; the range can go on.
    Attempt(Attempt),
    /// The range cannot.
    Failed(Failed),
}

enum Next {
    Body(Result<Option<bytes::Bytes>, Attempt>),
    Tick,
}

/// One timer per body and not one per frame: the watchdog costs nothing while bytes flow.
async fn next_or_tick(body: &mut Body, tick: std::pin::Pin<&mut Sleep>) -> Next {
    tokio::select! {
        biased;
        next = body.next() => Next::Body(next),
        () = tick => Next::Tick,
    }
}
