//! One object's way onto the volume: buffers on the async side, writes on a blocking thread.
//!
//! What arrives is gathered without copying until it is worth a system call, then written at its
//! place while the next bytes arrive: one write is under way per range, never more, so a slow disk
//! slows the socket down instead of filling the memory.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use tokio::task::JoinHandle;

use super::TransferError;
use crate::{
    destination::RelativePath,
    volume::{ModelVolume, Partial, VolumeError},
};

/// What is gathered before it is written: large enough that the system call is cheap, small enough
/// that many ranges fit into little memory. A range holds at most twice this.
const WRITE_BYTES: usize = 256 << 10;

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

    fn write(&self, buffers: &[Bytes], offset_bytes: u64) -> Result<(), VolumeError> {
        self.partial()?.write_at(buffers, offset_bytes)
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
    offset_bytes: u64,
    buffers: Vec<Bytes>,
    buffered_bytes: usize,
    under_way: Option<JoinHandle<Result<(), VolumeError>>>,
}

impl Writer {
    pub(super) fn new(target: Arc<Target>, offset_bytes: u64) -> Self {
        Self { target, offset_bytes, buffers: Vec::new(), buffered_bytes: 0, under_way: None }
    }

    /// Takes the next bytes; waits for the previous write where a new one is due.
    pub(super) async fn push(&mut self, bytes: Bytes) -> Result<(), TransferError> {
        self.buffered_bytes += bytes.len();
        self.buffers.push(bytes);
        if self.buffered_bytes < WRITE_BYTES {
            return Ok(());
        }
        self.wait().await?;
        let (buffers, offset) = self.take();
        let target = Arc::clone(&self.target);
        self.under_way = Some(tokio::task::spawn_blocking(move || target.write(&buffers, offset)));
        Ok(())
    }

    /// Writes what is left of the range.
    pub(super) async fn finish(mut self) -> Result<(), TransferError> {
        self.wait().await?;
        if self.buffers.is_empty() {
            return Ok(());
        }
        let (buffers, offset) = self.take();
        blocking(move || self.target.write(&buffers, offset)).await
    }

    /// Writes what is left of the file and gives it its final name, in one go.
    pub(super) async fn finish_and_publish(mut self) -> Result<(), TransferError> {
        self.wait().await?;
        let (buffers, offset) = self.take();
        blocking(move || {
            self.target.write(&buffers, offset)?;
            self.target.publish()
        })
        .await
    }

    fn take(&mut self) -> (Vec<Bytes>, u64) {
        let offset = self.offset_bytes;
        self.offset_bytes += self.buffered_bytes as u64;
        self.buffered_bytes = 0;
        (std::mem::take(&mut self.buffers), offset)
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
