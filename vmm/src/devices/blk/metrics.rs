//! Counters of a disk. Written by the workers, read by the control thread.

use crate::counter::Counter;

#[derive(Debug, Default)]
pub(super) struct BlkMetrics {
    /// Chains taken.
    pub(super) requests: Counter,
    /// Chains that have no place for an answer, or are larger than the driver was told: they were returned as they are.
    pub(super) malformed: Counter,
    /// Requests that were answered with an error.
    pub(super) errors: Counter,
    /// Those among them that would have changed a disk that is read-only.
    pub(super) read_only: Counter,
    pub(super) read_bytes: Counter,
    pub(super) written_bytes: Counter,
    pub(super) flushes: Counter,
}

impl BlkMetrics {
    pub(super) fn values(&self) -> Vec<(&'static str, u64)> {
        vec![
            ("requests", self.requests.get()),
            ("malformed", self.malformed.get()),
            ("errors", self.errors.get()),
            ("read_only_refused", self.read_only.get()),
            ("read_bytes", self.read_bytes.get()),
            ("written_bytes", self.written_bytes.get()),
            ("flushes", self.flushes.get()),
        ]
    }
}
