//! One stretch of an object from the store to the volume, across as many connections as it takes.

use std::time::{Duration, Instant};

use super::{Engine, Failed, object::Version};
use crate::{
    checksum::{RangeChecksum, Running, Verifiability},
    ranges::ByteRange,
    retry::Backoff,
    s3::{Attempt, Get, Reader},
    volume::{Partial, VolumeError, WriteBehind},
};

/// How much is gathered before it is written: large enough that the system calls cost nothing, small enough to stay in
/// the processor's cache between them.
pub(super) const BUFFER_BYTES: usize = 256 << 10;

/// How often other bytes may come than those that were asked for. It is a proxy's or a store's
/// habit, and seldom passes; the minute that an unreachable store is given would be wasted on it.
const MAX_WRONG_ANSWERS: u32 = 3;

/// Whoever moves bytes: a connection and a buffer, used again and again.
#[derive(Debug)]
pub(super) struct Worker {
    pub(super) reader: Reader,
    buffer: Vec<u8>,
}

impl Worker {
    pub(super) fn new(reader: Reader) -> Self {
        Self { reader, buffer: Vec::new() }
    }
}

/// What takes the bytes of a range as they come, in order.
pub(super) trait Sink {
    /// What the store says of the whole object; told where the whole object was asked for, before the first byte.
    fn told(&mut self, checksum: Verifiability);

    /// How many bytes may come at once from here on.
    fn room(&self, offset_bytes: u64) -> u64;

    /// The next bytes.
    fn take(&mut self, bytes: &[u8], offset_bytes: u64) -> Result<(), VolumeError>;
}

/// One range on its way.
pub(super) struct RangeFetch<'a> {
    engine: &'a Engine,
    version: &'a Version,
    range: ByteRange,
    /// The whole object is asked for without a `Range` header, and its checksum with it.
    is_whole: bool,
    arrived_bytes: u64,
    started: Instant,
    backoff: Backoff,
    wrong_answers: u32,
}

impl<'a> RangeFetch<'a> {
    pub(super) fn new(engine: &'a Engine, version: &'a Version, range: ByteRange, is_whole: bool) -> Self {
        Self {
            engine,
            version,
            range,
            is_whole,
            arrived_bytes: 0,
            started: Instant::now(),
            backoff: Backoff::new(engine.store.policy()),
            wrong_answers: 0,
        }
    }

    /// Fetches all of the range. A body that breaks off goes on where it broke.
    pub(super) fn run(&mut self, worker: &mut Worker, sink: &mut impl Sink) -> Result<(), Failed> {
        while let Some(rest) = self.range.after(self.arrived_bytes) {
            let attempt = match self.attempt(rest, worker, sink) {
                Ok(()) => continue,
                Err(Ended::Attempt(attempt)) => attempt,
                Err(Ended::Volume(error)) => return Err(error.into()),
                Err(Ended::Stopped) => return Err(Failed::Stopped),
            };
            let has_more_than_planned = self.is_whole && self.range.after(self.arrived_bytes).is_none();
            if attempt.is_changed() || has_more_than_planned {
                return Err(Failed::Changed);
            }
            self.wrong_answers += u32::from(attempt.is_wrong_bytes());
            if attempt.is_throttled() {
                self.engine.queue.throttled();
            }
            let wait = attempt.wait(&mut self.backoff, self.started.elapsed());
            let Some(wait) = wait.filter(|_| self.wrong_answers < MAX_WRONG_ANSWERS) else {
                let attempts = self.backoff.failures().max(1);
                let error = self.engine.store.give_up(attempt, self.get(None), attempts, self.started.elapsed());
                return Err(Failed::Fatal(error.into()));
            };
            self.say(&attempt, wait);
            self.engine.progress.retried();
            if self.engine.queue.pause(wait) {
                return Err(Failed::Stopped);
            }
        }
        Ok(())
    }

    fn attempt(&mut self, rest: ByteRange, worker: &mut Worker, sink: &mut impl Sink) -> Result<(), Ended> {
        let asks_for_whole = self.is_whole && self.arrived_bytes == 0;
        let get = self.get((!asks_for_whole).then_some(rest));
        let Worker { reader, buffer } = worker;
        buffer.resize(BUFFER_BYTES, 0);
        let mut body = reader.get(get).map_err(Ended::Attempt)?;
        if asks_for_whole {
            sink.told(std::mem::replace(&mut body.checksum, Verifiability::Absent));
        }
        loop {
            let offset = self.range.offset_bytes() + self.arrived_bytes;
            let left = self.range.len_bytes() - self.arrived_bytes;
            let room = usize::try_from(left.min(sink.room(offset))).map_or(BUFFER_BYTES, |room| room.min(BUFFER_BYTES));
            // At the range's end one more read, of nothing, lets the body say whether it ends there.
            let Some(buffer) = buffer.get_mut(..room) else { return Ok(()) };
            let length = body.read(buffer).map_err(Ended::Attempt)?;
            let Some(bytes) = buffer.get(..length).filter(|bytes| !bytes.is_empty()) else { return Ok(()) };
            sink.take(bytes, offset).map_err(Ended::Volume)?;
            self.arrived_bytes += length as u64;
            self.backoff.progressed(length as u64, self.started.elapsed());
            if self.engine.queue.is_stopped() {
                return Err(Ended::Stopped);
            }
        }
    }

    fn get(&self, range: Option<ByteRange>) -> Get<'a> {
        let Version { bucket, key, etag, version, size_bytes, .. } = self.version;
        Get { bucket, key, etag: etag.as_deref(), version: version.as_deref(), size_bytes: *size_bytes, range }
    }

    /// The first failures are nobody's business; a third in a row somebody may want to know.
    fn say(&self, attempt: &Attempt, wait: Duration) {
        let key = &self.version.key;
        if self.backoff.failures() == 3 {
            tracing::warn!(key, "the range {} keeps failing: {attempt}; trying on", self.range);
        } else {
            tracing::debug!(key, "range {}: {attempt}; trying again in {wait:?}", self.range);
        }
    }
}

/// How one connection's share of a range ended.
enum Ended {
    /// It broke; the range can go on.
    Attempt(Attempt),
    /// The volume refuses.
    Volume(VolumeError),
    /// Somebody else has failed.
    Stopped,
}

/// The bytes of a small object, which is one range, one extent and has no journal.
#[derive(Debug)]
pub(super) struct WholeSink<'a> {
    pub(super) engine: &'a Engine,
    pub(super) partial: &'a Partial,
    /// What the store says of the object.
    pub(super) told: Option<Verifiability>,
    pub(super) running: Option<Running>,
    pub(super) counted: u64,
    pub(super) behind: WriteBehind,
}

impl Sink for WholeSink<'_> {
    fn told(&mut self, checksum: Verifiability) {
        use crate::checksum::Expected;
        self.running = match &checksum {
            Verifiability::FullObject(Expected::Crc(expected)) => Some(Running::new(expected.algorithm())),
            _ => None,
        };
        self.told = Some(checksum);
    }

    fn room(&self, _offset_bytes: u64) -> u64 {
        u64::MAX
    }

    fn take(&mut self, bytes: &[u8], offset_bytes: u64) -> Result<(), VolumeError> {
        if let Some(running) = &mut self.running {
            running.update(bytes);
        }
        self.partial.write_at(bytes, offset_bytes)?;
        self.partial.written(&mut self.behind, offset_bytes + bytes.len() as u64)?;
        self.counted += bytes.len() as u64;
        self.engine.progress.received(bytes.len() as u64);
        Ok(())
    }
}

/// The bytes of a range of a large object, extent by extent.
#[derive(Debug)]
pub(super) struct ExtentSink<'a> {
    engine: &'a Engine,
    object: &'a super::object::Object,
    extent_begin: u64,
    extent_end: u64,
    running: Running,
    behind: WriteBehind,
}

impl<'a> ExtentSink<'a> {
    pub(super) fn new(engine: &'a Engine, object: &'a super::object::Object, range: ByteRange) -> Self {
        let extent_begin = range.offset_bytes();
        let extent_end = object.cut_after(extent_begin);
        let (running, behind) = (Running::new(object.algorithm), WriteBehind::new(extent_begin));
        Self { engine, object, extent_begin, extent_end, running, behind }
    }

    /// The range has ended: what was written last leaves the page cache too.
    pub(super) fn end(self) -> Result<(), VolumeError> {
        self.object.partial().settle(&self.behind, self.extent_begin)
    }

    fn end_extent(&mut self) -> Result<(), VolumeError> {
        let checksum: RangeChecksum = self.running.finish();
        self.object.finished(self.extent_begin, checksum)?;
        self.running = Running::new(self.object.algorithm);
        self.extent_begin = self.extent_end;
        self.extent_end = self.object.cut_after(self.extent_begin);
        Ok(())
    }
}

impl Sink for ExtentSink<'_> {
    fn told(&mut self, _checksum: Verifiability) {}

    fn room(&self, offset_bytes: u64) -> u64 {
        self.extent_end - offset_bytes
    }

    fn take(&mut self, bytes: &[u8], offset_bytes: u64) -> Result<(), VolumeError> {
        self.running.update(bytes);
        let end = offset_bytes + bytes.len() as u64;
        self.object.partial().write_at(bytes, offset_bytes)?;
        self.object.partial().written(&mut self.behind, end)?;
        self.object.count(bytes.len() as u64, &self.engine.progress);
        if end == self.extent_end {
            self.end_extent()?;
        }
        Ok(())
    }
}
