//! Final names are given when it is certain that the model will be complete as planned.
//!
//! Bytes arrive while the listing still runs, and its last page may hold a key that makes the whole plan impossible.
//! Until the plan is accepted, files that are whole wait for their names in the hidden directory; where a digest of the
//! whole model is pinned, until that is known to be right. An archive that is the whole of a download gets no name: what
//! is in it does.

use std::{
    fs::{self, File},
    sync::{Arc, Mutex, PoisonError},
};

use super::TransferError;
use crate::{
    archive::{self, ArchiveKind, Unpacked},
    plan::PlannedFile,
    volume::{ModelVolume, Whole},
};

/// A file that is whole and verified.
#[derive(Debug)]
pub(super) struct Ready {
    pub(super) volume: Arc<ModelVolume>,
    pub(super) whole: Whole,
    pub(super) file: Arc<PlannedFile>,
}

impl Ready {
    fn publish(&self, archives: &[Arc<PlannedFile>]) -> Result<Option<Unpacked>, TransferError> {
        let kind = ArchiveKind::of_file_name(self.file.path.file_name());
        match kind.filter(|_| archives.iter().any(|archive| Arc::ptr_eq(archive, &self.file))) {
            Some(kind) => self.unpack(kind).map(Some),
            None => {
                self.volume.publish(&self.whole, &self.file.path)?;
                Ok(None)
            }
        }
    }

    fn unpack(&self, kind: ArchiveKind) -> Result<Unpacked, TransferError> {
        let failed = |source| TransferError::Archive { key: self.file.object.key.clone(), source };
        let unreadable = |source| failed(archive::ArchiveError::Read(source));
        let staging = self.whole.path().with_extension("unpacked");
        // What an earlier run has unpacked was not all of it.
        if staging.exists() {
            fs::remove_dir_all(&staging).map_err(unreadable)?;
        }
        fs::create_dir(&staging).map_err(unreadable)?;
        let file = File::open(self.whole.path()).map_err(unreadable)?;
        let unpacked = archive::unpack(&file, kind, &staging).map_err(failed)?;
        archive::publish_tree(&staging, self.volume.root())?;
        self.volume.remove(&self.whole)?;
        tracing::info!(archive = self.file.object.key, files = unpacked.files, "unpacked the archive");
        Ok(unpacked)
    }
}

#[derive(Debug)]
pub(super) struct Gate(Mutex<State>);

#[derive(Debug)]
enum State {
    Closed(Vec<Ready>),
    /// With the files that are unpacked.
    Open(Arc<[Arc<PlannedFile>]>),
}

impl Gate {
    pub(super) fn closed() -> Self {
        Self(Mutex::new(State::Closed(Vec::new())))
    }

    /// Gives the file its final name, or keeps it until that may be done.
    pub(super) fn pass(&self, ready: Ready) -> Result<Option<Unpacked>, TransferError> {
        let archives = match &mut *self.0.lock().unwrap_or_else(PoisonError::into_inner) {
            State::Closed(waiting) => {
                waiting.push(ready);
                return Ok(None);
            }
            State::Open(archives) => Arc::clone(archives),
        };
        ready.publish(&archives)
    }

    /// Gives every file that waits its final name, and those that come later theirs at once. Tells which of them were
    /// archives, and how many files were in each.
    pub(super) fn open(&self, archives: &[Arc<PlannedFile>]) -> Result<Vec<(Arc<PlannedFile>, u64)>, TransferError> {
        let state = std::mem::replace(
            &mut *self.0.lock().unwrap_or_else(PoisonError::into_inner),
            State::Open(archives.into()),
        );
        let State::Closed(waiting) = state else { return Ok(Vec::new()) };
        let mut all_unpacked = Vec::new();
        for ready in waiting {
            if let Some(unpacked) = ready.publish(archives)? {
                all_unpacked.push((ready.file, unpacked.files));
            }
        }
        Ok(all_unpacked)
    }

    /// Looks at what waits.
    pub(super) fn waiting<T>(&self, look: impl FnMut(&Ready) -> T) -> Vec<T> {
        match &*self.0.lock().unwrap_or_else(PoisonError::into_inner) {
            State::Closed(waiting) => waiting.iter().map(look).collect(),
            State::Open(_) => Vec::new(),
        }
    }
}
