//! One object's way onto the volume: buffers on the async side, writes on a blocking thread.
//!
//! What arrives is gathered until it is worth a system call, then written at its place while the next bytes arrive: one
//! write is under way per range, never more, so a slow disk slows the socket down instead of filling the memory.
//!
//! Bytes are copied into buffers that are used again and again. Keeping the HTTP client's own slices instead would save
//! the copy, but each of them pins the block that it was cut from, so nobody could say how much memory is held.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::task::JoinHandle;

use super::TransferError;
use crate::{
    destination::RelativePath,
    ranges::ByteRange,
    volume::{ModelVolume, Partial, VolumeError},
};

/// What is gathered before it is written: large enough that the system call is cheap, small enough that many ranges fit
/// into little memory. A range holds at most twice this.
const WRITE_BYTES: usize = 128 << 10;

/// Buffers that are not in use. There are never more than two per connection.
#[derive(Debug, Default)]
pub(super) struct Buffers(Mutex<Vec<Vec<u8>>>);

impl Buffers {
    fn take(&self, len_bytes: u64) -> Vec<u8> {
        let free = self.0.lock().unwrap_or_else(PoisonError::into_inner).pop();
        // A small object needs no more than its own size.
        let capacity = usize::try_from(len_bytes).unwrap_or(WRITE_BYTES).min(WRITE_BYTES);
        free.unwrap_or_else(|| Vec::with_capacity(capacity))
    }

    fn give_back(&self, mut buffer: Vec<u8>) {
        buffer.clear();
        if buffer.capacity() >= WRITE_BYTES {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).push(buffer);
        }
    }
}

/// A file that is being fetched. Its partial is created by the first write, so that a small file
/// needs a blocking thread only once.
#[derive(Debug)]
pub(super) struct Target {
    volume: Arc<ModelVolume>,
    path: RelativePath,
    len_bytes: u64,
    partial: Mutex<Option<Arc<Partial>>>,
}

impl Target {
    pub(super) fn new(volume: Arc<ModelVolume>, path: RelativePath, len_bytes: u64) -> Self {
        Self { volume, path, len_bytes, partial: Mutex::new(None) }
    }

    fn partial(&self) -> Result<Arc<Partial>, VolumeError> {
        let mut partial = self.partial.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(partial) = &*partial {
            return Ok(Arc::clone(partial));
        }
        let created = Arc::new(self.volume.create_partial(self.len_bytes)?);
        *partial = Some(Arc::clone(&created));
        Ok(created)
    }

    fn write(&self, bytes: &[u8], offset_bytes: u64) -> Result<(), VolumeError> {
        self.partial()?.write_at(bytes, offset_bytes)
    }

    /// Gives the file its final name. Every byte must have been written.
    pub(super) fn publish(&self) -> Result<(), VolumeError> {
        self.volume.publish(&*self.partial()?, &self.path)
    }
}

/// The bytes of one range on their way.
#[derive(Debug)]
pub(super) struct Writer {
    target: Arc<Target>,
    buffers: Arc<Buffers>,
    /// Where the first byte of `buffer` belongs.
    offset_bytes: u64,
    /// What is left of the range, `buffer` included.
    left_bytes: u64,
    buffer: Vec<u8>,
    under_way: Option<JoinHandle<Result<(), VolumeError>>>,
}

impl Writer {
    pub(super) fn new(target: Arc<Target>, buffers: Arc<Buffers>, range: ByteRange) -> Self {
        let (offset_bytes, left_bytes) = (range.offset_bytes(), range.len_bytes());
        let buffer = buffers.take(left_bytes);
        Self { target, buffers, offset_bytes, left_bytes, buffer, under_way: None }
    }

    /// Takes the next bytes; waits for the previous write where a new one is due.
    pub(super) async fn push(&mut self, mut bytes: &[u8]) -> Result<(), TransferError> {
        while !bytes.is_empty() {
            let room = WRITE_BYTES - self.buffer.len();
            let (now, later) = bytes.split_at(room.min(bytes.len()));
            self.buffer.extend_from_slice(now);
            bytes = later;
            // The range's end is left to `finish`, which may have more to do in the same go.
            if self.buffer.len() == WRITE_BYTES && self.left_bytes > WRITE_BYTES as u64 {
                self.wait().await?;
                let (buffer, offset) = self.take();
                let (target, buffers) = (Arc::clone(&self.target), Arc::clone(&self.buffers));
                self.under_way = Some(tokio::task::spawn_blocking(move || {
                    let written = target.write(&buffer, offset);
                    buffers.give_back(buffer);
                    written
                }));
            }
        }
        Ok(())
    }

    /// Writes what is left of the range.
    pub(super) async fn finish(mut self) -> Result<(), TransferError> {
        self.wait().await?;
        blocking(move || self.write_rest()).await
    }

    /// Writes what is left of the file and gives it its final name, in one go.
    pub(super) async fn finish_and_publish(mut self) -> Result<(), TransferError> {
        self.wait().await?;
        blocking(move || {
            let target = Arc::clone(&self.target);
            self.write_rest()?;
            target.publish()
        })
        .await
    }

    fn write_rest(mut self) -> Result<(), VolumeError> {
        let written = self.target.write(&self.buffer, self.offset_bytes);
        self.buffers.give_back(std::mem::take(&mut self.buffer));
        written
    }

    /// The full buffer and its place; an empty one takes over.
    fn take(&mut self) -> (Vec<u8>, u64) {
        let offset = self.offset_bytes;
        let length = self.buffer.len() as u64;
        self.offset_bytes += length;
        self.left_bytes -= length;
        let next = self.buffers.take(self.left_bytes);
        (std::mem::replace(&mut self.buffer, next), offset)
    }

    async fn wait(&mut self) -> Result<(), TransferError> {
        match self.under_way.take() {
            Some(write) => Ok(write.await.map_err(TransferError::Stopped)??),
            None => Ok(()),
        }
    }
}

/// Runs `work` where it may block.
pub(super) async fn blocking(
    work: impl FnOnce() -> Result<(), VolumeError> + Send + 'static,
) -> Result<(), TransferError> {
    Ok(tokio::task::spawn_blocking(work).await.map_err(TransferError::Stopped)??)
}
