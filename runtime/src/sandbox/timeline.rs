//! The stamps of one start, collected from the command, the server and the VMM.

use std::sync::{Mutex, PoisonError};

use bulkhead_protocol::timeline::{Phase, Stamp};

/// The first stamp of each phase counts: an `exec` later is not part of the start.
#[derive(Debug, Default)]
pub(crate) struct Timeline(Mutex<Vec<Stamp>>);

impl Timeline {
    pub(crate) fn add(&self, stamp: Stamp) {
        let mut stamps = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if stamps.iter().all(|known| known.phase != stamp.phase) {
            stamps.push(stamp);
        }
    }

    pub(crate) fn mark(&self, phase: Phase) {
        self.add(Stamp::now(phase));
    }

    /// In the order of a start.
    pub(crate) fn stamps(&self) -> Vec<Stamp> {
        let mut stamps = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        stamps.sort_by_key(|stamp| stamp.phase);
        stamps
    }
}
