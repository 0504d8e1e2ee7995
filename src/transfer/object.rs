//! A large object that is being fetched: its partial, its journal, and which bytes are there.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use aws_lc_rs::digest::{SHA256, digest};
use serde_json::json;

use super::{
    Failed, TransferError, journal,
    ledger::{Cuts, Ledger},
    progress::Progress,
    verify::{Piece, extent_algorithm, read},
};
use crate::{
    checksum::{Algorithm, RangeChecksum, Running},
    plan::PlannedFile,
    ranges::ByteRange,
    s3::ObjectHead,
    volume::{Journal, ModelVolume, Partial, Stamp, VolumeError, boot_id},
};

/// The state of an object that its bytes are read from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Version {
    pub(super) bucket: Arc<str>,
    pub(super) key: String,
    pub(super) etag: Option<String>,
    pub(super) version: Option<String>,
    pub(super) size_bytes: u64,
    modified_seconds: Option<i64>,
}

impl Version {
    pub(super) fn planned(file: &PlannedFile) -> Self {
        Self {
            bucket: Arc::clone(&file.bucket),
            key: file.object.key.clone(),
            etag: file.object.etag.clone(),
            version: file.head.as_ref().and_then(|head| head.version.clone()),
            size_bytes: file.object.size_bytes,
            modified_seconds: file.object.modified_seconds,
        }
    }

    /// The state that a new head tells of.
    pub(super) fn adopt(&mut self, head: &ObjectHead) {
        self.etag.clone_from(&head.object.etag);
        self.version.clone_from(&head.version);
        self.size_bytes = head.object.size_bytes;
        self.modified_seconds = head.object.modified_seconds;
    }

    /// Whether the head is of this state.
    pub(super) fn is_of(&self, head: &ObjectHead) -> bool {
        self.etag == head.object.etag && self.size_bytes == head.object.size_bytes
    }

    /// What marks a file of this state; `None` where the store does not tell one state from another.
    pub(super) fn stamp(&self) -> Option<Stamp> {
        // Not every store's ETag depends on the content alone.
        let identity = format!("{} {} {} {}", self.bucket, self.key, self.etag.as_deref()?, self.size_bytes);
        Some(Stamp::new(&identity, self.modified_seconds?))
    }

    /// The first line of the journal: partials of anything else are not continued.
    fn journal_line(&self, endpoint: &str, algorithm: Algorithm, cuts: &Cuts) -> Option<String> {
        let line = json!({
            "format": 1,
            "endpoint": endpoint,
            "bucket": &*self.bucket,
            "key": self.key,
            "etag": self.etag.as_ref()?,
            "version": self.version,
            "size": self.size_bytes,
            "first_cut": cuts.after(0),
            "checksum": algorithm.name(),
        });
        Some(line.to_string())
    }
}

/// One start of one large object.
#[derive(Debug)]
pub(super) struct Object {
    pub(super) file: Arc<PlannedFile>,
    pub(super) volume: Arc<ModelVolume>,
    /// The how manieth start it is, from 1 on.
    pub(super) start: u32,
    /// The state as the plan has it, or a head.
    planned: Version,
    /// `None` in it: nobody will tell.
    told: OnceLock<Option<Told>>,
    partial: Partial,
    ledger: Mutex<Ledger>,
    failed: Mutex<Option<Failed>>,
    /// What was counted as arrived.
    counted: AtomicU64,
}

/// What an object's head tells, and what follows from it.
#[derive(Debug)]
pub(super) struct Told {
    version: Version,
    pub(super) pieces: Vec<Piece>,
    pub(super) algorithm: Algorithm,
    /// How many bytes earlier runs have brought.
    pub(super) resumed_bytes: u64,
    journal: Option<Journal>,
}

impl Object {
    /// Goes on with what an earlier run, or an earlier start, has left, or begins.
    pub(super) fn open(
        file: Arc<PlannedFile>,
        volume: Arc<ModelVolume>,
        version: Version,
        start: u32,
        pieces: Vec<Piece>,
        endpoint: &str,
    ) -> Result<Self, VolumeError> {
        let algorithm = extent_algorithm(&pieces);
        let cuts = Cuts::new(version.size_bytes, part_ends(&pieces));
        let partial = volume.partial(&partial_name(&file), version.size_bytes)?;
        let line = version.journal_line(endpoint, algorithm, &cuts).filter(|_| volume.is_locked());
        let mut extents = Vec::new();
        let mut journal = None;
        if let Some(line) = line {
            extents = earlier_extents(&partial, &line, algorithm, version.size_bytes)?;
            journal = Some(partial.begin_journal(journal_of(&line, extents.iter().copied()).as_bytes())?);
        }
        let ledger = Ledger::new(cuts, extents);
        let resumed_bytes = ledger.present_bytes();
        let told = Told { version: version.clone(), pieces, algorithm, resumed_bytes, journal };
        let object = Self::new(file, volume, start, version, partial, ledger);
        let _ = object.told.set(Some(told));
        Ok(object)
    }

    /// Begins with an object of which nothing is there, by what the listing has told. Ranges can be asked for; what comes of
    /// them waits for [`Object::tell`].
    pub(super) fn begin(
        file: Arc<PlannedFile>,
        volume: Arc<ModelVolume>,
        version: Version,
    ) -> Result<Self, VolumeError> {
        let partial = volume.partial(&partial_name(&file), version.size_bytes)?;
        let ledger = Ledger::without_head(version.size_bytes);
        Ok(Self::new(file, volume, 1, version, partial, ledger))
    }

    fn new(
        file: Arc<PlannedFile>,
        volume: Arc<ModelVolume>,
        start: u32,
        planned: Version,
        partial: Partial,
        ledger: Ledger,
    ) -> Self {
        let (told, ledger, failed) = (OnceLock::new(), Mutex::new(ledger), Mutex::new(None));
        Self { file, volume, start, planned, told, partial, ledger, failed, counted: AtomicU64::new(0) }
    }

    /// What the head has told of the state that was planned.
    pub(super) fn tell(&self, version: Version, pieces: Vec<Piece>, endpoint: &str) -> Result<(), VolumeError> {
        let algorithm = extent_algorithm(&pieces);
        let line = {
            let mut ledger = self.ledger();
            ledger.learn_parts(part_ends(&pieces));
            version.journal_line(endpoint, algorithm, ledger.cuts()).filter(|_| self.volume.is_locked())
        };
        let begin = |line: String| self.partial.begin_journal(journal_of(&line, std::iter::empty()).as_bytes());
        let journal = line.map(begin).transpose()?;
        let _ = self.told.set(Some(Told { version, pieces, algorithm, resumed_bytes: 0, journal }));
        Ok(())
    }

    /// Nobody will tell: whoever waits for it ends.
    pub(super) fn never_tell(&self) {
        let _ = self.told.set(None);
    }

    /// What the head has told; waits for it.
    pub(super) fn told(&self) -> Result<&Told, Failed> {
        self.told.wait().as_ref().ok_or(Failed::Stopped)
    }

    /// The same without waiting.
    fn told_so_far(&self) -> Option<&Told> {
        self.told.get()?.as_ref()
    }

    /// The state that its bytes are read from, as it is known now.
    pub(super) fn version(&self) -> &Version {
        self.told_so_far().map_or(&self.planned, |told| &told.version)
    }

    /// The next range to ask for, of a store that needs so long for an answer.
    pub(super) fn take(&self, about_bytes: u64, answer: Duration) -> Option<ByteRange> {
        self.ledger().take(about_bytes, Instant::now() + answer)
    }

    /// A half of a range that is under way and takes longer than `worth`.
    pub(super) fn share(&self, worth: Duration, answer: Duration) -> Option<ByteRange> {
        let now = Instant::now();
        self.ledger().share(worth, now, now + answer)
    }

    /// How long the slowest range takes at least that can be shared.
    pub(super) fn expected(&self) -> Option<Duration> {
        self.ledger().expected(Instant::now())
    }

    pub(super) fn left_bytes(&self) -> u64 {
        self.ledger().left_bytes()
    }

    pub(super) fn has_gaps(&self) -> bool {
        self.ledger().has_gaps()
    }

    /// Whether bytes of it have been asked for and not come.
    pub(super) fn is_under_way(&self) -> bool {
        self.ledger().is_under_way()
    }

    /// Where the extent that begins here ends.
    pub(super) fn cut_after(&self, offset_bytes: u64) -> u64 {
        self.ledger().cuts().after(offset_bytes)
    }

    pub(super) fn partial(&self) -> &Partial {
        &self.partial
    }

    /// An extent is on the volume. Where the range ends by now that it belongs to.
    pub(super) fn finished(&self, offset_bytes: u64, checksum: RangeChecksum) -> Result<u64, VolumeError> {
        let range_end = self.ledger().finished(offset_bytes, checksum);
        if let Some(journal) = self.told_so_far().and_then(|told| told.journal.as_ref()) {
            journal.append(journal::record(offset_bytes, checksum).as_bytes())?;
        }
        Ok(range_end)
    }

    /// Whoever had taken the range that begins here has done with it; whether nothing is under way or to be asked for any
    /// more.
    pub(super) fn returned(&self, offset_bytes: u64, result: Result<(), Failed>) -> bool {
        self.settled(result, |ledger| ledger.returned(offset_bytes))
    }

    /// The same of the head.
    pub(super) fn head_returned(&self, result: Result<(), Failed>) -> bool {
        self.settled(result, Ledger::head_returned)
    }

    fn settled(&self, result: Result<(), Failed>, is_last: impl FnOnce(&mut Ledger) -> bool) -> bool {
        let mut ledger = self.ledger();
        if let Err(failed) = result {
            ledger.abandon();
            self.failed.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(failed);
        }
        is_last(&mut ledger) && !ledger.has_gaps()
    }

    /// Why the object cannot be completed, where it cannot.
    pub(super) fn take_failure(&self) -> Option<Failed> {
        self.failed.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// The checksum, by this algorithm, of what has arrived of a piece.
    pub(super) fn arrived(&self, algorithm: Algorithm, range: ByteRange) -> Option<RangeChecksum> {
        self.ledger().checksum(algorithm, range)
    }

    /// Forgets pieces that are wrong, so that the next start asks for them again, and for nothing else.
    pub(super) fn forget(&self, told: &Told, wrong: &[ByteRange], endpoint: &str) -> Result<(), VolumeError> {
        let mut ledger = self.ledger();
        for range in wrong {
            ledger.forget(*range);
        }
        let Some(line) = told.version.journal_line(endpoint, told.algorithm, ledger.cuts()) else { return Ok(()) };
        if told.journal.is_some() {
            self.partial.begin_journal(journal_of(&line, ledger.extents()).as_bytes())?;
        }
        Ok(())
    }

    /// What earlier runs have brought is there.
    pub(super) fn count_resumed(&self, progress: &Progress) {
        let resumed_bytes = self.told_so_far().map_or(0, |told| told.resumed_bytes);
        self.counted.fetch_add(resumed_bytes, Ordering::Relaxed);
        progress.arrived(resumed_bytes);
    }

    pub(super) fn count(&self, bytes: u64, progress: &Progress) {
        self.counted.fetch_add(bytes, Ordering::Relaxed);
        progress.received(bytes);
    }

    pub(super) fn take_back(&self, progress: &Progress) {
        progress.taken_back(self.counted.swap(0, Ordering::Relaxed));
    }

    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The ends of the parts; of none where the object is taken as one.
fn part_ends(pieces: &[Piece]) -> Vec<u64> {
    match pieces {
        [] | [_] => Vec::new(),
        parts => parts.iter().map(|piece| piece.range.end_bytes()).collect(),
    }
}

/// A journal that begins with these extents.
fn journal_of(line: &str, extents: impl Iterator<Item = (u64, RangeChecksum)>) -> String {
    let records = extents.map(|(offset, checksum)| journal::record(offset, checksum));
    records.fold(journal::beginning(line, boot_id()), |journal, record| journal + &record)
}

/// The name of an object's partial: the same in every run, whatever state the object is in.
pub(super) fn partial_name(file: &PlannedFile) -> String {
    let identity = [&*file.bucket, &file.object.key, file.path.as_str()].join("\0");
    let digest = digest(&SHA256, identity.as_bytes());
    digest.as_ref().iter().take(16).map(|byte| format!("{byte:02x}")).collect()
}

/// What an earlier run has brought, as far as it can be trusted.
fn earlier_extents(
    partial: &Partial,
    line: &str,
    algorithm: Algorithm,
    size_bytes: u64,
) -> Result<Vec<(u64, RangeChecksum)>, VolumeError> {
    let Some(mut replay) = journal::replay(&partial.read_journal(), line, algorithm) else { return Ok(Vec::new()) };
    // The page cache outlives a process and not a machine.
    if replay.boot_id != boot_id() || partial.is_remote() {
        tracing::info!("comparing what an earlier run has left: it may not have reached the disk");
        let mut good = Vec::new();
        for (offset, noted) in replay.extents {
            let range = ByteRange::new(offset, noted.len_bytes()).filter(|range| range.end_bytes() <= size_bytes);
            let Some(range) = range else { continue };
            let mut running = Running::new(algorithm);
            // What cannot be read is not there.
            let is_read = read(range, |bytes, at| partial.read_at(bytes, at), |bytes| running.update(bytes)).is_ok();
            if is_read && running.finish() == noted {
                good.push((offset, noted));
            }
        }
        replay.extents = good;
    }
    Ok(replay.extents)
}

impl From<VolumeError> for Failed {
    fn from(error: VolumeError) -> Self {
        Self::Fatal(TransferError::Volume(error))
    }
}
