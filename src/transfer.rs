//! The engine: many objects at once, each of them in ranges, straight into its file.
//!
//! # How a byte travels
//!
//! Each object is a task; a large one splits into ranges, each a task of its own, so that one huge
//! object uses all cores. A task gets a permit before it asks the store; permits are what bounds
//! the number of requests, and with it the memory: a range holds two write buffers and never its
//! body, whatever its size. It keeps its permit while it waits for its next attempt, so that a store
//! that fails or throttles is asked less. The largest objects start first, and small ones fill the gaps.
//!
//! # What may go wrong
//!
//! A body that breaks off continues at the byte where it broke, with `If-Match`, so that both halves
//! are of one version. An object that changes while it is read starts again from a new HEAD, twice
//! at most. A checksum that does not match does so too. Anything permanent (denied, certificate, no
//! space) ends the whole transfer at once; tasks are dropped where they are.
//!
//! # What is verified
//!
//! Length and ETag always. Where the store keeps a checksum of the whole object, it is compared:
//! each range computes its own, and they are combined in the order of the ranges. The file gets its
//! name after that, never before.

mod memory;
pub mod progress;
mod range;
mod writer;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    task::{JoinError, JoinSet},
};

use self::{
    memory::Concurrency,
    progress::Progress,
    range::{RangeStream, Version},
    writer::{Buffers, Target, blocking},
};
use crate::{
    cgroup,
    checksum::{Checksum, Mismatch, RangeChecksum, Verifiability, combine},
    plan::{Plan, PlannedFile},
    ranges::{ByteRange, RangePolicy, ranges},
    report::{FileReport, Verified},
    s3::{ObjectHead, S3, S3Error},
    settings::Limits,
    volume::{ModelVolume, VolumeError},
};

/// How often an object is started again after it changed or arrived damaged.
const MAX_RESTARTS: u32 = 2;

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
        source: Mismatch,
    },
    /// Something replaces the object faster than it can be read.
    #[error("object {key:?} was replaced {times} times while it was read; start again when nobody writes to it")]
    Changed {
        /// The object.
        key: String,
        /// How often it was started.
        times: u32,
    },
    /// A task ended without a result: a bug, or the runtime is shutting down.
    #[error("a task of the transfer stopped")]
    Stopped(#[source] JoinError),
}

/// Fetches every file of `plan` onto `volumes`, which are the plan's destinations.
///
/// # Errors
///
/// The first [`TransferError`]; files that were whole by then have their names, and nothing else
/// has.
pub async fn download(
    store: &S3,
    plan: Plan,
    volumes: &[Arc<ModelVolume>],
    limits: &Limits,
    progress: Arc<Progress>,
) -> Result<Vec<FileReport>, TransferError> {
    let concurrency =
        Concurrency::for_limits(&cgroup::Limits::read(), limits.max_objects.as_ref().map(|objects| objects.value));
    tracing::debug!(?concurrency, "limits of the transfer");
    let engine = Arc::new(Engine {
        store: store.clone(),
        permits: Arc::new(Semaphore::new(concurrency.connections)),
        stall_timeout: limits.stall_timeout.value,
        policy: RangePolicy::default(),
        buffers: Arc::default(),
        progress,
    });
    let mut files = plan.files;
    files.sort_by_key(|file| std::cmp::Reverse(file.object.size_bytes));
    let mut reports = Vec::with_capacity(files.len());
    // Dropped with everything in it where this function returns early.
    let mut tasks = JoinSet::new();
    for file in files {
        while tasks.len() >= concurrency.objects {
            reports.extend(join(&mut tasks).await?);
        }
        // The plan has an index for each of its destinations.
        let Some(volume) = volumes.get(file.destination) else { continue };
        tasks.spawn(Arc::clone(&engine).fetch(file, Arc::clone(volume)));
    }
    while let Some(report) = join(&mut tasks).await? {
        reports.push(report);
    }
    reports.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(reports)
}

/// The next task's result; `None` where there is no task.
async fn join<T: 'static>(tasks: &mut JoinSet<Result<T, TransferError>>) -> Result<Option<T>, TransferError> {
    match tasks.join_next().await {
        Some(result) => Ok(Some(result.map_err(TransferError::Stopped)??)),
        None => Ok(None),
    }
}

#[derive(Debug)]
struct Engine {
    store: S3,
    permits: Arc<Semaphore>,
    stall_timeout: Duration,
    policy: RangePolicy,
    buffers: Arc<Buffers>,
    progress: Arc<Progress>,
}

/// Why an object is started again, or not.
#[derive(Debug)]
enum Failed {
    Changed,
    Damaged(Mismatch),
    Fatal(TransferError),
}

impl<E: Into<TransferError>> From<E> for Failed {
    fn from(error: E) -> Self {
        Self::Fatal(error.into())
    }
}

impl Engine {
    async fn fetch(self: Arc<Self>, file: PlannedFile, volume: Arc<ModelVolume>) -> Result<FileReport, TransferError> {
        let mut version = Version::planned(&file);
        let mut head = file.head;
        let mut starts = 1;
        loop {
            if head.is_none() && version.size_bytes > self.policy.split_above_bytes {
                head = Some(self.head(&mut version).await?);
            }
            let expected = head.take().and_then(|head| full_object(head.checksum));
            let target = Target::new(Arc::clone(&volume), file.path.clone(), version.size_bytes);
            let fetch = Arc::new(Fetch::new(Arc::clone(&self), version.clone(), expected, target));
            let failed = match fetch.run().await {
                Ok(verified) => {
                    self.progress.finished_file();
                    tracing::debug!(key = version.key, bytes = version.size_bytes, %verified, "file in place");
                    return Ok(FileReport {
                        destination: volume.root().to_owned(),
                        path: file.path,
                        bytes: version.size_bytes,
                        verified,
                    });
                }
                Err(failed) => failed,
            };
            self.progress.taken_back(fetch.arrived());
            let key = version.key.clone();
            match failed {
                Failed::Fatal(error) => return Err(error),
                Failed::Changed if starts > MAX_RESTARTS => {
                    return Err(TransferError::Changed { key, times: starts });
                }
                Failed::Damaged(source) if starts > MAX_RESTARTS => {
                    return Err(TransferError::Damaged { key, times: starts, source });
                }
                Failed::Changed => tracing::warn!(key, "the object was replaced while it was read; starting it again"),
                Failed::Damaged(mismatch) => {
                    tracing::warn!(key, "the object arrived damaged ({mismatch}); fetching it again");
                }
            }
            starts += 1;
            head = Some(self.head(&mut version).await?);
        }
    }

    /// The object as it is now; whatever is fetched from here on is of this state.
    async fn head(&self, version: &mut Version) -> Result<ObjectHead, S3Error> {
        let _permit = self.permit().await;
        let head = self.store.head(&version.bucket, &version.key).await?;
        self.progress.resized(version.size_bytes, head.object.size_bytes);
        version.adopt(&head);
        Ok(head)
    }

    /// Waits until one more request may be made. The semaphore is never closed.
    async fn permit(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.permits).acquire_owned().await.ok()
    }
}

/// One start of one object.
#[derive(Debug)]
struct Fetch {
    engine: Arc<Engine>,
    version: Version,
    /// What the object should add up to, where a head has told it.
    expected: Option<Checksum>,
    target: Arc<Target>,
    /// What this start has counted as arrived.
    arrived: AtomicU64,
}

impl Fetch {
    fn new(engine: Arc<Engine>, version: Version, expected: Option<Checksum>, target: Target) -> Self {
        Self { engine, version, expected, target: Arc::new(target), arrived: AtomicU64::new(0) }
    }

    fn arrived(&self) -> u64 {
        self.arrived.load(Ordering::Relaxed)
    }

    fn count(&self, bytes: u64) {
        self.arrived.fetch_add(bytes, Ordering::Relaxed);
        self.engine.progress.arrived(bytes);
    }

    async fn run(self: &Arc<Self>) -> Result<Verified, Failed> {
        match ByteRange::new(0, self.version.size_bytes) {
            None => self.create_empty().await,
            Some(whole) if whole.len_bytes() <= self.engine.policy.split_above_bytes => self.fetch_whole(whole).await,
            Some(_) => self.fetch_ranges().await,
        }
    }

    async fn create_empty(&self) -> Result<Verified, Failed> {
        let target = Arc::clone(&self.target);
        blocking(move || target.publish()).await?;
        Ok(Verified::Empty)
    }

    /// One request for a small object; its answer brings the checksum.
    async fn fetch_whole(&self, whole: ByteRange) -> Result<Verified, Failed> {
        let permit = self.engine.permit().await;
        let mut stream = RangeStream::of_whole(self, whole);
        stream.receive().await?;
        drop(permit);
        let arrived = stream.checksum();
        let verified = verify(stream.expected, arrived)?;
        stream.writer.finish_and_publish().await?;
        Ok(verified)
    }

    /// The ranges of a large object in parallel.
    async fn fetch_ranges(self: &Arc<Self>) -> Result<Verified, Failed> {
        let parts = self.fetch_all().await?;
        let arrived = self.expected.and_then(|expected| combine(expected.algorithm(), parts.into_iter().flatten()));
        let verified = verify(self.expected, arrived)?;
        let target = Arc::clone(&self.target);
        blocking(move || target.publish()).await?;
        Ok(verified)
    }

    /// Every range, as many at a time as there are permits; their checksums in order.
    async fn fetch_all(self: &Arc<Self>) -> Result<Vec<Option<RangeChecksum>>, Failed> {
        let size_bytes = self.version.size_bytes;
        let mut parts = vec![None; usize::try_from(self.engine.policy.count(size_bytes)).unwrap_or(0)];
        let mut tasks = JoinSet::new();
        let mut result = Ok(());
        for (index, range) in ranges(size_bytes, &self.engine.policy).enumerate() {
            let permit = self.engine.permit().await;
            let fetch = Arc::clone(self);
            tasks.spawn(async move {
                let _permit = permit;
                let mut stream = RangeStream::of_range(&fetch, range);
                stream.receive().await?;
                let checksum = stream.checksum();
                stream.writer.finish().await?;
                Ok((index, checksum))
            });
            // Whatever has ended meanwhile is taken in, so that a failure stops the rest early.
            while let Some(ended) = tasks.try_join_next() {
                result = result.and(take_in(&mut parts, ended));
            }
            if result.is_err() {
                break;
            }
        }
        while result.is_ok()
            && let Some(ended) = tasks.join_next().await
        {
            result = take_in(&mut parts, ended);
        }
        // Nothing of this start may still count or write when the next one begins.
        tasks.shutdown().await;
        result.map(|()| parts)
    }
}

fn take_in(
    parts: &mut [Option<RangeChecksum>],
    ended: Result<Result<(usize, Option<RangeChecksum>), Failed>, JoinError>,
) -> Result<(), Failed> {
    let (index, checksum) = ended.map_err(TransferError::Stopped)??;
    if let Some(part) = parts.get_mut(index) {
        *part = checksum;
    }
    Ok(())
}

fn verify(expected: Option<Checksum>, arrived: Option<RangeChecksum>) -> Result<Verified, Failed> {
    match (expected, arrived) {
        (Some(expected), Some(arrived)) => {
            expected.check(arrived.checksum()).map_err(Failed::Damaged)?;
            Ok(Verified::Checksum(expected.algorithm()))
        }
        (None, _) | (_, None) => Ok(Verified::EtagOnly),
    }
}

/// The checksum to compare with, where the store keeps one of the whole object.
fn full_object(checksum: Verifiability) -> Option<Checksum> {
    match checksum {
        Verifiability::FullObject(checksum) => Some(checksum),
        Verifiability::Composite
        | Verifiability::NotCombinable
        | Verifiability::Malformed(_)
        | Verifiability::Absent => None,
    }
}
