//! Counters of the fs device. Written by the workers, read by the control thread.

use crate::counter::Counter;

#[derive(Debug, Default)]
pub(super) struct FsMetrics {
    /// Chains taken.
    pub(super) requests: Counter,
    /// Chains that are no FUSE request: they were returned empty.
    pub(super) bad_requests: Counter,
    /// Names that no honest kernel sends.
    pub(super) bad_names: Counter,
    /// Changes refused because the device is read-only.
    pub(super) read_only: Counter,
    /// INITs of a guest that cannot do what is needed, or does nothing else.
    pub(super) refused_inits: Counter,
    /// Modes that lost setuid or setgid, and capabilities of files that were refused.
    pub(super) stripped: Counter,
}

impl FsMetrics {
    pub(super) fn values(&self) -> Vec<(&'static str, u64)> {
        vec![
            ("requests", self.requests.get()),
            ("bad_requests", self.bad_requests.get()),
            ("bad_names", self.bad_names.get()),
            ("read_only_refused", self.read_only.get()),
            ("refused_inits", self.refused_inits.get()),
            ("stripped", self.stripped.get()),
        ]
    }
}
