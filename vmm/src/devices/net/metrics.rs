//! Counters of the network device: frames and bytes by direction as the guest sees them, and what was dropped.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::queue::Dropped;

#[derive(Debug, Default)]
pub(super) struct NetMetrics {
    rx_frames: AtomicU64,
    rx_bytes: AtomicU64,
    /// Times that the tap had to wait for buffers of the guest.
    rx_starved: AtomicU64,
    tx_frames: AtomicU64,
    tx_bytes: AtomicU64,
    /// Frames that the host refused.
    tx_dropped: AtomicU64,
    /// Chains that broke the protocol.
    malformed: AtomicU64,
}

impl NetMetrics {
    pub(super) fn received(&self, bytes: usize) {
        self.rx_frames.fetch_add(1, Relaxed);
        self.rx_bytes.fetch_add(bytes as u64, Relaxed);
    }

    pub(super) fn starved(&self) {
        self.rx_starved.fetch_add(1, Relaxed);
    }

    pub(super) fn malformed(&self) {
        self.malformed.fetch_add(1, Relaxed);
    }

    pub(super) fn transmitted(&self, sent: &Result<usize, Dropped>) {
        match sent {
            Ok(bytes) => {
                self.tx_frames.fetch_add(1, Relaxed);
                self.tx_bytes.fetch_add(*bytes as u64, Relaxed);
            }
            Err(Dropped::Malformed) => self.malformed(),
            Err(Dropped::Refused) => {
                self.tx_dropped.fetch_add(1, Relaxed);
            }
        }
    }

    pub(super) fn values(&self) -> Vec<(&'static str, u64)> {
        vec![
            ("rx_frames", self.rx_frames.load(Relaxed)),
            ("rx_bytes", self.rx_bytes.load(Relaxed)),
            ("rx_starved", self.rx_starved.load(Relaxed)),
            ("tx_frames", self.tx_frames.load(Relaxed)),
            ("tx_bytes", self.tx_bytes.load(Relaxed)),
            ("tx_dropped", self.tx_dropped.load(Relaxed)),
            ("malformed", self.malformed.load(Relaxed)),
        ]
    }
}
