//! The descriptors behind what the guest has opened.
//!
//!   number ─▶ `Handle` ─▶ `Opened`                0, of an inode that nobody else uses ─▶ `Kept` of the inode ─▶ `Opened`

use std::{
    fs::File,
    os::fd::{AsFd, BorrowedFd},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::super::budget::Slot;

/// An open descriptor of the guest's.
#[derive(Debug)]
pub(super) struct Opened {
    file: Arc<File>,
    /// Held while the position is moved and used, which is that of a directory alone.
    position: Mutex<()>,
    _slot: Slot,
}

impl Opened {
    pub(super) fn new(file: File, slot: Slot) -> Self {
        Self { file: Arc::new(file), position: Mutex::default(), _slot: slot }
    }

    pub(super) fn file(&self) -> &Arc<File> {
        &self.file
    }

    pub(super) fn position(&self) -> MutexGuard<'_, ()> {
        // Whoever takes it sets the position first.
        self.position.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl AsFd for Opened {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// What an inode is to be open for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Use {
    Read,
    /// Reading too.
    Write,
}

/// The descriptor of an inode that the guest opens and closes without a message.
#[derive(Debug, Default)]
pub(super) struct Kept(Mutex<Option<(Use, Arc<Opened>)>>);

impl Kept {
    pub(super) fn slot(&self) -> MutexGuard<'_, Option<(Use, Arc<Opened>)>> {
        // Every change is one assignment.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn serves(&self, purpose: Use) -> Option<Arc<Opened>> {
        match &*self.slot() {
            Some((kept, opened)) if *kept == purpose || *kept == Use::Write => Some(Arc::clone(opened)),
            _ => None,
        }
    }
}
