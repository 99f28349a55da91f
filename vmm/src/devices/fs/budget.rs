//! How many descriptors the guest's files may take: one for each inode, each handle, and each owner of locks on a file.
//!
//! A `Slot` is one of them and goes back when it is dropped. What this process opens for itself takes none.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

/// Clones share the same slots.
#[derive(Debug, Clone)]
pub(super) struct Budget(Arc<AtomicU64>);

/// The right to keep one descriptor open for the guest.
#[derive(Debug)]
pub(super) struct Slot(Arc<AtomicU64>);

impl Budget {
    pub(super) fn new(descriptors: u64) -> Self {
        Self(Arc::new(AtomicU64::new(descriptors)))
    }

    /// # Errors
    /// ENFILE when the guest has them all.
    pub(super) fn take(&self) -> io::Result<Slot> {
        self.0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |free| free.checked_sub(1))
            .map_err(|_| io::Error::from_raw_os_error(libc::ENFILE))?;
        Ok(Slot(Arc::clone(&self.0)))
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}
