//! Final names are given when it is certain that the model will be complete as planned.
//!
//! Bytes arrive while the listing still runs, and its last page may hold a key that makes the whole plan impossible.
//! Until the plan is accepted, files that are whole wait for their names in the hidden directory.

use std::{
    mem,
    sync::{Arc, Mutex, PoisonError},
};

use crate::{
    plan::PlannedFile,
    volume::{ModelVolume, VolumeError, Whole},
};

/// A file that is whole and verified.
#[derive(Debug)]
pub(super) struct Ready {
    pub(super) volume: Arc<ModelVolume>,
    pub(super) whole: Whole,
    pub(super) file: Arc<PlannedFile>,
}

impl Ready {
    fn publish(&self) -> Result<(), VolumeError> {
        self.volume.publish(&self.whole, &self.file.path)
    }
}

#[derive(Debug, Default)]
pub(super) struct Gate {
    /// What waits; `None` once the gate is open.
    waiting: Mutex<Option<Vec<Ready>>>,
}

impl Gate {
    pub(super) fn closed() -> Self {
        Self { waiting: Mutex::new(Some(Vec::new())) }
    }

    /// Gives the file its final name, or keeps it until that may be done.
    pub(super) fn pass(&self, ready: Ready) -> Result<(), VolumeError> {
        {
            let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(waiting) = &mut *waiting {
                waiting.push(ready);
                return Ok(());
            }
        }
        ready.publish()
    }

    /// Gives every file that waits its final name; those that come later get theirs at once.
    pub(super) fn open(&self) -> Result<(), VolumeError> {
        let waiting = mem::take(&mut *self.waiting.lock().unwrap_or_else(PoisonError::into_inner));
        waiting.iter().flatten().try_for_each(Ready::publish)
    }
}
