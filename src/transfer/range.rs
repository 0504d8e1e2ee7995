//! One stretch of an object from the store to the volume, across as many connections as it takes.

use std::time::{Duration, Instant};

use super::{
    Engine, Failed,
    object::{Object, Version},
};
use crate::{
    checksum::{Expected, RangeChecksum, Running, Verifiability},
    ranges::ByteRange,
    retry::Backoff,
    s3::{Attempt, Get, Reader},
    volume::{Buffer, Partial, VolumeError, WriteBehind},
};

/// How often other bytes may come than those that were asked for. It is a proxy's or a store's
/// habit, and seldom passes; the minute that an unreachable store is given would be wasted on it.
const MAX_WRONG_ANSWERS: u32 = 3;

/// Whoever moves bytes: a connection and a buffer, used again and again.
#[derive(Debug)]
pub(super) struct Worker {
    pub(super) reader: Reader,
    buffer: Buffer,
}

impl Worker {
    pub(super) fn new(reader: Reader) -> Self {
        Self { reader, buffer: Buffer::default() }
    }
}

/// What takes the bytes of a range as they come, in order.
pub(super) trait Sink {
    /// The state of the object to ask for, as it is known now.
    fn version(&self) -> &Version;

    /// An answer is there, and before its first byte this: the version that it is of, and what the store says of the whole
    /// object, where that was asked for.
    fn answered(&mut self, version: Option<&str>, checksum: Option<Verifiability>) -> Result<(), Failed>;

    /// Where the range ends by now: another connection may have taken a part of it over.
    fn end_bytes(&self) -> u64;

    /// How many bytes shall come at once from here on, at most.
    fn room(&self, offset_bytes: u64) -> usize;

    /// The next bytes.
    fn take(&mut self, bytes: &[u8], offset_bytes: u64) -> Result<(), VolumeError>;
}

/// One range on its way.
pub(super) struct RangeFetch<'a> {
    engine: &'a Engine,
    range: ByteRange,
    /// The whole object is asked for without a `Range` header, and its checksum with it.
    is_whole: bool,
    arrived_bytes: u64,
    started: Instant,
    backoff: Backoff,
    wrong_answers: u32,
}

impl<'a> RangeFetch<'a> {
    pub(super) fn new(engine: &'a Engine, range: ByteRange, is_whole: bool) -> Self {
        Self {
            engine,
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
        while let Some(rest) = self.rest(sink) {
            let attempt = match self.attempt(rest, worker, sink) {
                Ok(()) => continue,
                Err(Ended::Attempt(attempt)) => attempt,
                Err(Ended::Failed(failed)) => return Err(failed),
            };
            let has_more_than_planned = self.is_whole && self.rest(sink).is_none();
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
                let error =
                    self.engine.store.give_up(attempt, get(sink.version(), None), attempts, self.started.elapsed());
                return Err(Failed::Fatal(error.into()));
            };
            self.say(&sink.version().key, &attempt, wait);
            self.engine.progress.retried();
            if self.engine.queue.pause(wait) {
                return Err(Failed::Stopped);
            }
        }
        Ok(())
    }

    fn rest(&self, sink: &impl Sink) -> Option<ByteRange> {
        let offset = self.range.offset_bytes() + self.arrived_bytes;
        ByteRange::new(offset, sink.end_bytes().saturating_sub(offset))
    }

    fn attempt(&mut self, rest: ByteRange, worker: &mut Worker, sink: &mut impl Sink) -> Result<(), Ended> {
        let asks_for_whole = self.is_whole && self.arrived_bytes == 0;
        let Worker { reader, buffer } = worker;
        let mut body = reader.get(get(sink.version(), (!asks_for_whole).then_some(rest))).map_err(Ended::Attempt)?;
        let checksum = std::mem::replace(&mut body.checksum, Verifiability::Absent);
        sink.answered(body.version.as_deref(), asks_for_whole.then_some(checksum)).map_err(Ended::Failed)?;
        loop {
            let offset = self.range.offset_bytes() + self.arrived_bytes;
            let left = usize::try_from(sink.end_bytes().saturating_sub(offset)).unwrap_or(usize::MAX);
            let buffer = buffer.of(left.min(sink.room(offset)));
            // At the range's end one more read, of nothing, lets the body say whether it ends there. Where the range was cut
            // it does not, and what is to come of it goes with the connection.
            let length = body.read(buffer).map_err(Ended::Attempt)?;
            let Some(bytes) = buffer.get(..length).filter(|bytes| !bytes.is_empty()) else { return Ok(()) };
            sink.take(bytes, offset).map_err(|error| Ended::Failed(error.into()))?;
            self.arrived_bytes += length as u64;
            self.backoff.progressed(length as u64, self.started.elapsed());
            if self.engine.queue.is_stopped() {
                return Err(Ended::Failed(Failed::Stopped));
            }
        }
    }

    /// The first failures are nobody's business; a third in a row somebody may want to know.
    fn say(&self, key: &str, attempt: &Attempt, wait: Duration) {
        if self.backoff.failures() == 3 {
            tracing::warn!(key, "the range {} keeps failing: {attempt}; trying on", self.range);
        } else {
            tracing::debug!(key, "range {}: {attempt}; trying again in {wait:?}", self.range);
        }
    }
}

fn get(version: &Version, range: Option<ByteRange>) -> Get<'_> {
    let Version { bucket, key, etag, version, size_bytes, .. } = version;
    Get { bucket, key, etag: etag.as_deref(), version: version.as_deref(), size_bytes: *size_bytes, range }
}

/// How one connection's share of a range ended.
enum Ended {
    /// It broke; the range can go on.
    Attempt(Attempt),
    /// Nothing that another request could mend.
    Failed(Failed),
}

/// The bytes of a small object, which is one range, one extent and has no journal.
#[derive(Debug)]
pub(super) struct WholeSink<'a> {
    pub(super) engine: &'a Engine,
    pub(super) partial: &'a Partial,
    pub(super) version: &'a Version,
    /// What the store says of the object.
    pub(super) told: Option<Verifiability>,
    pub(super) running: Option<Running>,
    pub(super) counted: u64,
    pub(super) behind: WriteBehind,
}

impl Sink for WholeSink<'_> {
    fn version(&self) -> &Version {
        self.version
    }

    fn answered(&mut self, _version: Option<&str>, checksum: Option<Verifiability>) -> Result<(), Failed> {
        if let Some(checksum) = checksum {
            self.running = match &checksum {
                Verifiability::FullObject(Expected::Crc(expected)) => Some(Running::new(expected.algorithm())),
                _ => None,
            };
            self.told = Some(checksum);
        }
        Ok(())
    }

    fn end_bytes(&self) -> u64 {
        self.version.size_bytes
    }

    fn room(&self, offset_bytes: u64) -> usize {
        self.partial.at_once(offset_bytes)
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
    object: &'a Object,
    range_end: u64,
    extent_begin: u64,
    /// Known once the object's head is.
    extent: Option<Extent>,
    behind: WriteBehind,
}

/// The extent under way.
#[derive(Debug)]
struct Extent {
    end: u64,
    running: Running,
}

impl<'a> ExtentSink<'a> {
    pub(super) fn new(engine: &'a Engine, object: &'a Object, range: ByteRange) -> Self {
        let (extent_begin, range_end) = (range.offset_bytes(), range.end_bytes());
        Self { engine, object, range_end, extent_begin, extent: None, behind: WriteBehind::new(extent_begin) }
    }

    /// The range has ended: what was written last leaves the page cache too.
    pub(super) fn end(self) -> Result<(), VolumeError> {
        self.object.partial().settle(&self.behind, self.extent_begin)
    }
}

impl Sink for ExtentSink<'_> {
    fn version(&self) -> &Version {
        self.object.version()
    }

    fn answered(&mut self, version: Option<&str>, _checksum: Option<Verifiability>) -> Result<(), Failed> {
        let told = self.object.told()?;
        // What was asked for before the version was known has its ETag, and must have its id as well.
        if let (Some(version), Some(planned)) = (version, self.object.version().version.as_deref())
            && version != planned
        {
            return Err(Failed::Changed);
        }
        if self.extent.is_none() {
            let running = Running::new(told.algorithm);
            self.extent = Some(Extent { end: self.object.cut_after(self.extent_begin), running });
        }
        Ok(())
    }

    fn end_bytes(&self) -> u64 {
        self.range_end
    }

    fn room(&self, offset_bytes: u64) -> usize {
        let left = self.extent.as_ref().map_or(0, |extent| extent.end - offset_bytes);
        usize::try_from(left).unwrap_or(usize::MAX).min(self.object.partial().at_once(offset_bytes))
    }

    fn take(&mut self, bytes: &[u8], offset_bytes: u64) -> Result<(), VolumeError> {
        // What was not answered brings no bytes.
        let Some(extent) = &mut self.extent else { return Ok(()) };
        extent.running.update(bytes);
        let end = offset_bytes + bytes.len() as u64;
        self.object.partial().write_at(bytes, offset_bytes)?;
        self.object.partial().written(&mut self.behind, end)?;
        self.object.count(bytes.len() as u64, &self.engine.progress);
        if end == extent.end {
            let checksum: RangeChecksum = extent.running.finish();
            extent.running = Running::new(checksum.checksum().algorithm());
            self.range_end = self.object.finished(self.extent_begin, checksum)?;
            self.extent_begin = end;
            extent.end = self.object.cut_after(end);
        }
        Ok(())
    }
}
