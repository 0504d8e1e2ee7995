//! The engine: many objects at once, each of them in ranges, straight into its file.
//!
//! # How a byte travels
//!
//! Workers are threads. Each has one connection and one buffer, and does one thing after another: ask for a range, read
//! what comes, sum it up, write it at its place. No byte is handed from thread to thread, nothing is queued, and so the
//! memory hardly depends on the size of anything: a worker holds its buffer and its connection, and never a body. What
//! a worker does next is decided in `queue`; how many are worth having, in `growth`; how many the container can bear, in
//! `memory`.
//!
//! # What is kept
//!
//! A large object's bytes become good in extents of a few MiB; the journal beside its partial has a line for each. A
//! process that ends early, however it ends, loses what it had not finished of the extents under way, and the next one
//! goes on from there. A file that is whole carries a stamp, and is not fetched again as long as the object is the same.
//!
//! # What may go wrong
//!
//! A body that breaks off continues at the byte where it broke, with `If-Match`, so that both halves are of one version.
//! An object that changes while it is read starts again from a new HEAD, twice at most. A checksum that does not match
//! does so too, and fetches the pieces that are wrong. Anything permanent (denied, certificate, no space) ends the whole
//! transfer at once.
//!
//! # What is verified
//!
//! Length and ETag always. Where the store keeps a checksum, of the whole object or of its parts, it is compared: each
//! extent has its own CRC, and they are combined; for hashes, which cannot be combined, the file is read once more. The
//! file gets its name after that, never before, and not before the plan is known to be possible (`gate`).

mod digest;
mod gate;
mod growth;
pub mod journal;
mod ledger;
mod memory;
mod object;
pub mod progress;
mod queue;
mod range;
mod verify;

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    io,
    path::PathBuf,
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::Instant,
};

use self::{
    digest::Member,
    gate::{Gate, Ready},
    growth::Growth,
    memory::Concurrency,
    object::{Object, Version, partial_name},
    progress::Progress,
    queue::{Beginning, LEAST_RANGE_BYTES, Queue, Start, Work},
    range::{ExtentSink, RangeFetch, Sink as _, WholeSink, Worker},
    verify::Piece,
};
use crate::{
    archive::ArchiveError,
    cgroup,
    checksum::{Expected, Hash, HashAlgorithm, Hasher, Verifiability},
    destination::RelativePath,
    plan::{Plan, PlannedFile},
    ranges::ByteRange,
    report::{Arrival, FileReport, Verified},
    s3::{ObjectHead, S3, S3Error},
    settings::Limits,
    units::MIB,
    volume::{FreeSpace, ModelVolume, Partial, Presence, VolumeError, Whole, WriteBehind, check_ways},
};
pub use verify::Difference;

/// How often an object is started again after it changed or arrived damaged.
const MAX_RESTARTS: u32 = 2;

/// An object of this size or less is one request, whose answer brings its checksum; a larger one is worth a HEAD.
const SPLIT_ABOVE_BYTES: u64 = 32 * MIB;

/// Why the transfer ended.
#[derive(Debug, thiserror::Error)]
pub enum TransferError {
    /// The store refused.
    #[error(transparent)]
    S3(#[from] S3Error),
    /// The volume refused.
    #[error(transparent)]
    Volume(#[from] VolumeError),
    /// What arrived is not what the store keeps.
    #[error("object {key:?} arrived damaged {times} times")]
    Damaged {
        /// The object.
        key: String,
        /// How often it was fetched.
        times: u32,
        /// Both values.
        #[source]
        source: Difference,
    },
    /// Something replaces the object faster than it can be read.
    #[error("object {key:?} was replaced {times} times while it was read; start again when nobody writes to it")]
    Changed {
        /// The object.
        key: String,
        /// How often it was started.
        times: u32,
    },
    /// The archive cannot be unpacked.
    #[error("archive {key:?}")]
    Archive {
        /// The object.
        key: String,
        /// Why.
        #[source]
        source: ArchiveError,
    },
    /// The model is not the one that was pinned.
    #[error(
        "VERIFICATION_DIGEST: the model's {what} is {actual}, and {pinned} is pinned; no file of this run got its final name"
    )]
    Pinned {
        /// Of what the digest is.
        what: &'static str,
        /// What was downloaded.
        actual: Hash,
        /// What was pinned.
        pinned: Hash,
    },
    /// A file cannot be read for its digest.
    #[error("{} cannot be read", .path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The system's error.
        #[source]
        source: io::Error,
    },
    /// A task ended without a result: the runtime is shutting down.
    #[error("a task of the transfer stopped")]
    Stopped,
    /// Not every file was seen to the end: a bug.
    #[error("{done} of {planned} files were brought to an end; this is a bug in storage-initializer, please report it")]
    Lost {
        /// How many files there should be.
        planned: usize,
        /// How many there are.
        done: usize,
    },
    /// The system gives no thread.
    #[error("no thread can be started; is there a limit on the container's processes?")]
    Thread(#[source] io::Error),
}

/// A transfer under way. Dropped, it ends where it stands.
#[derive(Debug)]
pub struct Transfer {
    engine: Arc<Engine>,
    concurrency: Concurrency,
    /// How many connections there are at first; known when something is fetched first.
    first: OnceLock<usize>,
    /// What the model must be, by `VERIFICATION_DIGEST`.
    pinned: Option<Hash>,
    /// What each destination had room for before the first byte, and what is needed of it.
    needs: Mutex<Vec<(FreeSpace, u64)>>,
    /// What waits for the plan, because earlier runs' partials are where its bytes will be; `None` once it is accepted.
    deferred: Mutex<Option<Vec<Start>>>,
}

#[derive(Debug)]
struct Engine {
    store: S3,
    runtime: tokio::runtime::Handle,
    /// As the journals name it.
    endpoint: String,
    volumes: Vec<Arc<ModelVolume>>,
    verify_etag_md5: bool,
    memory_limit: Option<u64>,
    queue: Queue,
    gate: Gate,
    workers: AtomicUsize,
    progress: Arc<Progress>,
    reports: Mutex<Vec<FileReport>>,
    has_said_unstamped: AtomicBool,
}

/// Why an object is started again, or not.
#[derive(Debug)]
enum Failed {
    Changed,
    Damaged(Difference),
    Fatal(TransferError),
    /// Somebody else has failed.
    Stopped,
}

impl From<S3Error> for Failed {
    fn from(error: S3Error) -> Self {
        Self::Fatal(error.into())
    }
}

impl Transfer {
    /// Begins to fetch what [`Transfer::add`] will name onto `volumes`, which are the plan's destinations. To be called
    /// on the runtime.
    ///
    /// # Errors
    ///
    /// [`TransferError`] where a volume has gone, or no thread can be started.
    pub fn start(
        store: &S3,
        volumes: Vec<Arc<ModelVolume>>,
        limits: &Limits,
        progress: Arc<Progress>,
    ) -> Result<Self, TransferError> {
        let cgroup = cgroup::Limits::read();
        let concurrency = Concurrency::for_limits(&cgroup, limits.max_objects.as_ref().map(|objects| objects.value));
        let spaces = volumes.iter().map(|volume| Ok((volume.free_space()?, 0)));
        let needs = spaces.collect::<Result<_, VolumeError>>()?;
        let engine = Arc::new(Engine {
            store: store.clone(),
            runtime: tokio::runtime::Handle::current(),
            endpoint: store.endpoint(),
            volumes,
            verify_etag_md5: limits.verify_etag_md5.value,
            memory_limit: cgroup.memory_limit,
            queue: Queue::new(concurrency.few, concurrency.objects),
            gate: Gate::closed(),
            workers: AtomicUsize::new(0),
            progress,
            reports: Mutex::default(),
            has_said_unstamped: AtomicBool::new(false),
        });
        let pinned = limits.verification_digest.as_ref().map(|digest| digest.value.clone());
        let (needs, deferred) = (Mutex::new(needs), Mutex::new(Some(Vec::new())));
        Ok(Self { engine, concurrency, first: OnceLock::new(), pinned, needs, deferred })
    }

    /// Adds files of the plan. What is whole and unchanged is not fetched.
    ///
    /// # Errors
    ///
    /// [`TransferError::Volume`] where something is in the way of a file, or where the files so far do not fit.
    pub fn add(&self, files: Vec<Arc<PlannedFile>>) -> Result<(), TransferError> {
        let engine = &self.engine;
        let mut needs = self.needs.lock().unwrap_or_else(PoisonError::into_inner);
        let mut starts = Vec::with_capacity(files.len());
        for (destination, volume) in engine.volumes.iter().enumerate() {
            let here = files.iter().filter(|file| file.destination == destination);
            check_ways(volume.root(), here.map(|file| &file.path))?;
        }
        for file in files {
            // The plan has an index for each of its destinations.
            let volume = engine.volumes.get(file.destination);
            let (Some(volume), Some(need)) = (volume, needs.get_mut(file.destination)) else { continue };
            let size_bytes = file.object.size_bytes;
            let version = Version::planned(&file);
            let presence = volume.presence(&file.path, size_bytes, version.stamp().as_ref());
            engine.progress.planned(size_bytes);
            if presence == Presence::Current {
                engine.unchanged(&file, volume, &version, Verified::Stamp);
                continue;
            }
            // A file that is there may be the right one; if it is not, reserving finds out.
            if presence == Presence::Absent {
                need.1 += size_bytes;
            }
            starts.push(Start { file, number: 1, presence, size_bytes });
        }
        FreeSpace::check(&needs)?;
        let needed: u64 = needs.iter().map(|(_, bytes)| bytes).sum();
        // Half of it is enough for the kernel to write in peace.
        if engine.memory_limit.is_some_and(|limit| needed > limit / 2) {
            engine.volumes.iter().for_each(|volume| volume.spare_the_page_cache());
        }
        let is_short = needs.iter().any(|(space, bytes)| space.is_short_of(*bytes));
        match &mut *self.deferred.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(deferred) if is_short => deferred.extend(starts),
            Some(_) | None => return self.begin(starts),
        }
        Ok(())
    }

    fn begin(&self, starts: Vec<Start>) -> Result<(), TransferError> {
        let first = *self.first.get_or_init(|| {
            let answer = self.engine.store.answers_after();
            let waits_for_disk = self.engine.volumes.iter().any(|volume| volume.spares_the_page_cache());
            let first = growth::at_first(self.concurrency.few, self.concurrency.most, answer, waits_for_disk);
            self.engine.queue.begin(first, answer.unwrap_or_default());
            let at_most = self.concurrency.most;
            tracing::debug!(connections = first, at_most, answer = ?answer.unwrap_or_default(), "limits of the transfer");
            first
        });
        // A thread that would find nothing to do is not worth starting.
        let requests = starts.iter().map(|start| start.size_bytes.div_ceil(LEAST_RANGE_BYTES).max(1));
        let requests = usize::try_from(requests.sum::<u64>()).unwrap_or(usize::MAX);
        self.engine.queue.add(starts);
        self.engine.have_workers(requests.min(first))
    }

    /// The plan is complete and possible: earlier runs' partials that it does not name are removed, and files get their
    /// final names from here on; where a digest is pinned, in the end.
    ///
    /// # Errors
    ///
    /// [`TransferError`] where the volume refuses.
    pub async fn accept(&self, plan: &Plan) -> Result<(), TransferError> {
        let names = |destination| {
            let files = plan.files.iter().filter(move |file| file.destination == destination);
            files.map(|file| partial_name(file)).collect::<HashSet<_>>()
        };
        let names: Vec<_> = (0..self.engine.volumes.len()).map(names).collect();
        let engine = Arc::clone(&self.engine);
        let archives = plan.archives.clone();
        let is_pinned = self.pinned.is_some();
        let accept = move || {
            for (volume, names) in engine.volumes.iter().zip(&names) {
                volume.remove_partials_except(names)?;
            }
            if is_pinned { Ok(()) } else { engine.open_gate(&archives) }
        };
        // There may be a hundred thousand names to give: a signal must not have to wait for it.
        tokio::task::spawn_blocking(accept).await.map_err(|_| TransferError::Stopped)??;
        let deferred = self.deferred.lock().unwrap_or_else(PoisonError::into_inner).take();
        self.begin(deferred.unwrap_or_default())
    }

    /// Waits until every file has its name.
    ///
    /// # Errors
    ///
    /// The first [`TransferError`]; files that were whole by then have their names, and nothing else has.
    pub async fn finish(self, plan: &Plan) -> Result<Vec<FileReport>, TransferError> {
        let engine = &self.engine;
        engine.queue.complete();
        self.run().await?;
        let mut hashes = BTreeMap::new();
        if let Some(pinned) = self.pinned.clone() {
            let engine = Arc::clone(engine);
            let is_one = matches!(&*plan.files, [only] if only.head.is_some());
            let archives = plan.archives.clone();
            let compare = move || {
                let hashes = engine.compare(&pinned, is_one)?;
                engine.open_gate(&archives)?;
                Ok::<_, TransferError>(hashes)
            };
            // Reads the whole model: a signal must not have to wait for it.
            hashes = tokio::task::spawn_blocking(compare).await.map_err(|_| TransferError::Stopped)??;
        }
        let mut reports = std::mem::take(&mut *engine.reports.lock().unwrap_or_else(PoisonError::into_inner));
        if reports.len() != plan.files.len() {
            return Err(TransferError::Lost { planned: plan.files.len(), done: reports.len() });
        }
        for report in &mut reports {
            report.sha256 = hashes.remove(&report.path).map(|hash| hash.hex());
        }
        reports.sort_by(|a, b| (&a.destination, &a.path).cmp(&(&b.destination, &b.path)));
        Ok(reports)
    }

    /// Tries more connections while that pays, until nothing is left to do. What is added meanwhile is taken in.
    ///
    /// # Errors
    ///
    /// The first [`TransferError`].
    pub async fn run(&self) -> Result<(), TransferError> {
        let engine = &self.engine;
        let mut growth = Growth::new(self.concurrency.most);
        let mut ticks = tokio::time::interval(growth::TICK);
        ticks.tick().await;
        let mut bytes = engine.progress.received_bytes();
        loop {
            tokio::select! {
                biased;
                ended = engine.queue.ended() => return ended,
                _ = ticks.tick() => {}
            }
            let now = engine.progress.received_bytes();
            let load = engine.queue.load();
            let limit = growth.next(load, now.saturating_sub(bytes));
            bytes = now;
            if limit != load.limit {
                tracing::trace!(limit, "connections");
                engine.queue.limit(limit);
                engine.have_workers(limit)?;
            }
        }
    }
}

impl Drop for Transfer {
    fn drop(&mut self) {
        self.engine.queue.stop();
    }
}

impl Engine {
    /// Final names from here on, for what has waited and for what comes.
    fn open_gate(&self, archives: &[Arc<PlannedFile>]) -> Result<(), TransferError> {
        let unpacked = self.gate.open(archives)?;
        let mut reports = self.reports.lock().unwrap_or_else(PoisonError::into_inner);
        for report in reports.iter_mut() {
            let is_it =
                |(file, _): &&(Arc<PlannedFile>, u64)| file.path == report.path && file.object.key == report.key;
            report.unpacked_files = report.unpacked_files.or(unpacked.iter().find(is_it).map(|(_, files)| *files));
        }
        Ok(())
    }

    /// Compares the model with what is pinned, before any of it has its name. Files that are unchanged have theirs from an
    /// earlier run.
    fn compare(&self, pinned: &Hash, is_one: bool) -> Result<BTreeMap<RelativePath, Hash>, TransferError> {
        let mut members =
            self.gate.waiting(|ready| Member { path: ready.file.path.clone(), at: ready.whole.path().into() });
        {
            let reports = self.reports.lock().unwrap_or_else(PoisonError::into_inner);
            let waiting: BTreeSet<_> = members.iter().map(|member| member.path.clone()).collect();
            let present = reports.iter().filter(|report| !waiting.contains(&report.path));
            let present = present.map(|report| (report.path.clone(), report.path.join_to(&report.destination)));
            members.extend(present.map(|(path, at)| Member { path, at }));
        }
        tracing::info!(files = members.len(), "comparing the model with VERIFICATION_DIGEST");
        let (what, (digest, hashes)) = match is_one {
            true => {
                let hashes = digest::of_each(members)?;
                let only = hashes
                    .first()
                    .map_or_else(|| Hasher::new(HashAlgorithm::Sha256).finish(), |(_, hash)| hash.clone());
                ("object", (only, hashes))
            }
            false => ("manifest", digest::of_tree(members)?),
        };
        if digest != *pinned {
            return Err(TransferError::Pinned { what, actual: digest, pinned: pinned.clone() });
        }
        Ok(hashes.into_iter().collect())
    }

    /// Starts threads until there are so many. They end by themselves when there is nothing more to do.
    fn have_workers(self: &Arc<Self>, count: usize) -> Result<(), TransferError> {
        while self.workers.load(Ordering::Relaxed) < count {
            let engine = Arc::clone(self);
            let thread = thread::Builder::new().name("transfer".to_owned()).spawn(move || engine.work());
            match thread {
                Ok(_) => self.workers.fetch_add(1, Ordering::Relaxed),
                // A limit on the container's processes; those that there are do the work.
                Err(_) if self.workers.load(Ordering::Relaxed) > 0 => return Ok(()),
                Err(error) => return Err(TransferError::Thread(error)),
            };
        }
        Ok(())
    }

    fn work(&self) {
        let mut worker = Worker::new(self.store.reader(self.runtime.clone()));
        while let Some(work) = self.queue.next() {
            let result = match work {
                Work::Begin(start) => self.begin(start, &mut worker),
                Work::Range(object, range) => self.fetch_range(object, range, &mut worker),
            };
            self.queue.done();
            if let Err(error) = result {
                self.queue.fail(error);
            }
        }
    }

    /// Begins an object; a small one is fetched here and now.
    fn begin(&self, start: Start, worker: &mut Worker) -> Result<(), TransferError> {
        let Some(volume) = self.volumes.get(start.file.destination) else { return Ok(()) };
        let mut version = Version::planned(&start.file);
        let beginning = self.queue.beginning(&start);
        let is_plain = start.number == 1 && start.presence == Presence::Absent && start.file.head.is_none();
        if is_plain
            && version.size_bytes > SPLIT_ABOVE_BYTES
            && version.etag.is_some()
            && !volume.has_partial(&partial_name(&start.file))
        {
            return self.begin_before_head(&start.file, volume, version, beginning);
        }
        match self.try_begin(&start, volume, &mut version, beginning, worker) {
            Ok(()) => Ok(()),
            Err(failed) => self.start_again(&start.file, start.number, version.size_bytes, failed),
        }
    }

    /// Nothing is there of a large object: its first ranges are asked for beside its head, and not after it.
    fn begin_before_head(
        &self,
        file: &Arc<PlannedFile>,
        volume: &Arc<ModelVolume>,
        version: Version,
        beginning: Beginning<'_>,
    ) -> Result<(), TransferError> {
        let object = Object::begin(Arc::clone(file), Arc::clone(volume), version.clone())?;
        let object = Arc::new(object);
        self.queue.open(Arc::clone(&object), beginning);
        let result = self.tell(&object, version);
        if result.is_err() {
            object.never_tell();
        }
        let result = match result {
            Err(Failed::Fatal(error)) => return Err(error),
            result => result,
        };
        if object.head_returned(result) { self.conclude(object) } else { Ok(()) }
    }

    fn tell(&self, object: &Object, mut version: Version) -> Result<(), Failed> {
        let head = self.runtime.block_on(self.store.head(&version.bucket, &version.key));
        let head = head.map_err(|error| Failed::Fatal(error.into()))?;
        if !version.is_of(&head) {
            return Err(Failed::Changed);
        }
        version.adopt(&head);
        let pieces = self.pieces(&version, head.checksum)?;
        Ok(object.tell(version, pieces, &self.endpoint)?)
    }

    fn try_begin(
        &self,
        start: &Start,
        volume: &Arc<ModelVolume>,
        version: &mut Version,
        beginning: Beginning<'_>,
        worker: &mut Worker,
    ) -> Result<(), Failed> {
        let file = &start.file;
        let mut head = file.head.clone().filter(|_| start.number == 1);
        let is_large = version.size_bytes > SPLIT_ABOVE_BYTES;
        if head.is_none() && (start.number > 1 || is_large || start.presence == Presence::Unknown) {
            head = Some(self.head(start, version)?);
        }
        if self.queue.is_stopped() {
            return Err(Failed::Stopped);
        }
        let stamp = version.stamp();
        if let Some(head) = &head
            && start.presence == Presence::Unknown
            && start.number == 1
        {
            // The head may know more than the listing did.
            let presence = volume.presence(&file.path, version.size_bytes, stamp.as_ref());
            let verified = match presence {
                Presence::Current => Some(Verified::Stamp),
                Presence::Unknown => self.verify_present(file, volume, version, head)?,
                Presence::Absent => None,
            };
            if let Some(verified) = verified {
                self.unchanged(file, volume, version, verified);
                self.queue.finished();
                return Ok(());
            }
        }
        let name = partial_name(file);
        if volume.is_locked()
            && volume.presence_of_partial(&name, version.size_bytes, stamp.as_ref()) == Presence::Current
        {
            let whole = volume.whole(&name);
            self.progress.arrived(version.size_bytes);
            return self.name(file, volume, version, whole, Verified::Stamp, Arrival::Kept);
        }
        if version.size_bytes > SPLIT_ABOVE_BYTES {
            let checksum = head.map_or(Verifiability::Absent, |head| head.checksum);
            let pieces = self.pieces(version, checksum)?;
            let object = Object::open(
                Arc::clone(file),
                Arc::clone(volume),
                version.clone(),
                start.number,
                pieces,
                &self.endpoint,
            )?;
            object.count_resumed(&self.progress);
            let object = Arc::new(object);
            if object.has_gaps() {
                self.queue.open(object, beginning);
                return Ok(());
            }
            return self.conclude(object).map_err(Failed::Fatal);
        }
        self.fetch_small(file, volume, version, worker)
    }

    /// The object as it is now; whatever is fetched from here on is of this state.
    fn head(&self, start: &Start, version: &mut Version) -> Result<ObjectHead, S3Error> {
        let head = self.runtime.block_on(self.store.head(&version.bucket, &version.key))?;
        self.progress.resized(start.size_bytes, head.object.size_bytes);
        version.adopt(&head);
        Ok(head)
    }

    /// Whether a file of the right length, without a stamp, is the object: what a run before the machine's last start has
    /// brought, or another program.
    fn verify_present(
        &self,
        file: &PlannedFile,
        volume: &ModelVolume,
        version: &Version,
        head: &ObjectHead,
    ) -> Result<Option<Verified>, Failed> {
        let mut pieces = self.pieces(version, head.checksum.clone())?;
        if pieces.is_empty() {
            // What has the MD5 that an ETag is, is the object; what has not may be so too.
            pieces.extend(etag_md5(version));
        }
        let Ok(present) = volume.open_file(&file.path) else { return Ok(None) };
        if pieces.is_empty() || present.metadata().map_or(true, |metadata| metadata.len() != version.size_bytes) {
            return Ok(None);
        }
        let read_at = |bytes: &mut [u8], at| volume.read_file_at(&present, &file.path, bytes, at);
        for piece in &pieces {
            // What cannot be read is fetched again.
            if !matches!(verify::check(piece, None, read_at), Ok(Ok(()))) {
                return Ok(None);
            }
        }
        if let Some(stamp) = version.stamp() {
            stamp.put_on(&present);
        }
        Ok(Some(verify::verified(&pieces)))
    }

    /// What the object can be compared with, in pieces: one, or one for each part. None where the store keeps nothing.
    fn pieces(&self, version: &Version, checksum: Verifiability) -> Result<Vec<Piece>, Failed> {
        let whole = ByteRange::new(0, version.size_bytes);
        let pieces = match (checksum, whole) {
            (_, None) => Vec::new(),
            (Verifiability::FullObject(expected), Some(range)) => vec![Piece { range, expected }],
            (Verifiability::Composite, Some(_)) => {
                let parts =
                    self.store.parts(&version.bucket, &version.key, version.version.as_deref(), version.size_bytes);
                let parts = self.runtime.block_on(parts).into_iter();
                parts.map(|(range, expected)| Piece { range, expected }).collect()
            }
            (Verifiability::Malformed(name), Some(_)) => {
                tracing::warn!(key = version.key, "the store's {name} of this object is not one; not compared");
                Vec::new()
            }
            (Verifiability::Absent, Some(_)) => Vec::new(),
        };
        if pieces.is_empty() && self.verify_etag_md5 { Ok(etag_md5(version).into_iter().collect()) } else { Ok(pieces) }
    }

    /// One request for a small object; its answer brings the checksum.
    fn fetch_small(
        &self,
        file: &Arc<PlannedFile>,
        volume: &Arc<ModelVolume>,
        version: &Version,
        worker: &mut Worker,
    ) -> Result<(), Failed> {
        let partial = volume.partial(&partial_name(file), version.size_bytes)?;
        let Some(range) = ByteRange::new(0, version.size_bytes) else {
            return self.complete(file, volume, version, &partial, Verified::Empty, Arrival::Fetched);
        };
        let behind = WriteBehind::new(0);
        let mut sink =
            WholeSink { engine: self, partial: &partial, version, told: None, running: None, counted: 0, behind };
        let result = RangeFetch::new(self, range, true).run(worker, &mut sink).and_then(|()| {
            let pieces = self.pieces(version, sink.told.take().unwrap_or(Verifiability::Absent))?;
            for piece in &pieces {
                let arrived = sink.running.as_ref().map(|running| running.finish().checksum());
                let read_at = |bytes: &mut [u8], at| partial.read_at(bytes, at);
                verify::check(piece, arrived.filter(|_| pieces.len() == 1), read_at)?.map_err(Failed::Damaged)?;
            }
            Ok(verify::verified(&pieces))
        });
        match result {
            Ok(verified) => self.complete(file, volume, version, &partial, verified, Arrival::Fetched),
            Err(failed) => {
                self.progress.taken_back(sink.counted);
                Err(failed)
            }
        }
    }

    /// A range of a large object. Whoever brings the last one concludes the object.
    fn fetch_range(&self, object: Arc<Object>, range: ByteRange, worker: &mut Worker) -> Result<(), TransferError> {
        let started = Instant::now();
        let mut sink = ExtentSink::new(self, &object, range);
        let result = RangeFetch::new(self, range, false).run(worker, &mut sink);
        tracing::trace!(key = object.version().key, %range, end = sink.end_bytes(), elapsed = ?started.elapsed(), "range");
        let result = result.and_then(|()| Ok(sink.end()?));
        let result = match result {
            // Nothing that is under way can change that.
            Err(Failed::Fatal(error)) => return Err(error),
            result => result,
        };
        if object.returned(range.offset_bytes(), result) { self.conclude(object) } else { Ok(()) }
    }

    /// Nothing of the object is under way any more: it is whole, or it has failed.
    fn conclude(&self, object: Arc<Object>) -> Result<(), TransferError> {
        let failed = match object.take_failure() {
            Some(failed) => failed,
            None => match self.verify(&object) {
                Ok((verified, resumed_bytes)) => {
                    let arrival = match resumed_bytes {
                        0 => Arrival::Fetched,
                        kept_bytes => Arrival::Resumed { kept_bytes },
                    };
                    let Object { file, volume, .. } = &*object;
                    return match self.complete(file, volume, object.version(), object.partial(), verified, arrival) {
                        Err(Failed::Fatal(error)) => Err(error),
                        _ => Ok(()),
                    };
                }
                Err(failed) => failed,
            },
        };
        object.take_back(&self.progress);
        self.start_again(&object.file, object.start, object.version().size_bytes, failed)
    }

    /// Compares what has arrived with what the store keeps. How it was verified, and how many bytes earlier runs had brought.
    fn verify(&self, object: &Object) -> Result<(Verified, u64), Failed> {
        let told = object.told()?;
        let mut wrong = Vec::new();
        let mut first = None;
        for piece in &told.pieces {
            let arrived = object.arrived(told.algorithm, piece.range).map(|arrived| arrived.checksum());
            let read_at = |bytes: &mut [u8], at| object.partial().read_at(bytes, at);
            if let Err(difference) = verify::check(piece, arrived, read_at)? {
                wrong.push(piece.range);
                first.get_or_insert(difference);
            }
        }
        match first {
            None => Ok((verify::verified(&told.pieces), told.resumed_bytes)),
            Some(difference) => {
                object.forget(told, &wrong, &self.endpoint)?;
                Err(Failed::Damaged(difference))
            }
        }
    }

    /// Stamps a verified file and gives it its name.
    fn complete(
        &self,
        file: &Arc<PlannedFile>,
        volume: &Arc<ModelVolume>,
        version: &Version,
        partial: &Partial,
        verified: Verified,
        arrival: Arrival,
    ) -> Result<(), Failed> {
        let (whole, is_stamped) = partial.complete(version.stamp().as_ref())?;
        if !is_stamped && !self.has_said_unstamped.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                volume = %volume.root().display(),
                "this file system does not keep modification times exactly: a restart compares checksums, and fetches again what has none"
            );
        }
        self.name(file, volume, version, whole, verified, arrival)
    }

    fn name(
        &self,
        file: &Arc<PlannedFile>,
        volume: &Arc<ModelVolume>,
        version: &Version,
        whole: Whole,
        verified: Verified,
        arrival: Arrival,
    ) -> Result<(), Failed> {
        let ready = Ready { volume: Arc::clone(volume), whole, file: Arc::clone(file) };
        let unpacked = self.gate.pass(ready).map_err(Failed::Fatal)?;
        tracing::debug!(key = version.key, bytes = version.size_bytes, %verified, "file in place");
        self.report(file, volume, version, verified, arrival, unpacked.map(|unpacked| unpacked.files));
        self.queue.finished();
        Ok(())
    }

    fn unchanged(&self, file: &PlannedFile, volume: &ModelVolume, version: &Version, verified: Verified) {
        tracing::debug!(key = version.key, bytes = version.size_bytes, "file is there and unchanged");
        self.progress.arrived(version.size_bytes);
        self.report(file, volume, version, verified, Arrival::Kept, None);
    }

    fn report(
        &self,
        file: &PlannedFile,
        volume: &ModelVolume,
        version: &Version,
        verified: Verified,
        arrival: Arrival,
        unpacked_files: Option<u64>,
    ) {
        self.progress.finished_file();
        self.reports.lock().unwrap_or_else(PoisonError::into_inner).push(FileReport {
            bucket: Arc::clone(&version.bucket),
            key: version.key.clone(),
            etag: version.etag.clone(),
            version: version.version.clone(),
            destination: volume.root().to_owned(),
            path: file.path.clone(),
            bytes: version.size_bytes,
            verified,
            arrival,
            unpacked_files,
            sha256: None,
        });
    }

    /// Puts a failed object up to be begun again, or ends the transfer.
    fn start_again(
        &self,
        file: &Arc<PlannedFile>,
        number: u32,
        size_bytes: u64,
        failed: Failed,
    ) -> Result<(), TransferError> {
        let key = file.object.key.clone();
        match failed {
            Failed::Fatal(error) => return Err(error),
            Failed::Stopped => return Ok(()),
            Failed::Changed if number > MAX_RESTARTS => return Err(TransferError::Changed { key, times: number }),
            Failed::Damaged(source) if number > MAX_RESTARTS => {
                return Err(TransferError::Damaged { key, times: number, source });
            }
            Failed::Changed => tracing::warn!(key, "the object was replaced while it was read; starting it again"),
            Failed::Damaged(difference) => {
                tracing::warn!(key, "the object arrived damaged ({difference}); fetching it again");
            }
        }
        self.progress.retried();
        let file = Arc::clone(file);
        self.queue.again(Start { file, number: number + 1, presence: Presence::Absent, size_bytes });
        Ok(())
    }
}

/// The ETag of an object that was uploaded in one part is its MD5, unless it is encrypted with a key of the customer's or
/// of KMS.
fn etag_md5(version: &Version) -> Option<Piece> {
    let digits = version.etag.as_deref()?.trim_matches('"');
    let expected = Expected::Hash(Hash::from_hex(HashAlgorithm::Md5, digits)?);
    Some(Piece { range: ByteRange::new(0, version.size_bytes)?, expected })
}
