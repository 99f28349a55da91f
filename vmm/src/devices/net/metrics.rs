//! Counters of the network device: frames and bytes by direction as the guest sees them, and what was dropped.

use super::frame::Dropped;
use crate::counter::Counter;

#[derive(Debug, Default)]
pub(super) struct NetMetrics {
    rx_frames: Counter,
    rx_bytes: Counter,
    /// Times that the tap had to wait for buffers of the guest.
    rx_starved: Counter,
    tx_frames: Counter,
    tx_bytes: Counter,
    /// Frames that the host refused.
    tx_dropped: Counter,
    /// Chains that broke the protocol.
    malformed: Counter,
}

impl NetMetrics {
    pub(super) fn received(&self, bytes: usize) {
        self.rx_frames.increment();
        self.rx_bytes.add(bytes as u64);
    }

    pub(super) fn starved(&self) {
        self.rx_starved.increment();
    }

    pub(super) fn malformed(&self) {
        self.malformed.increment();
    }

    pub(super) fn transmitted(&self, sent: &Result<usize, Dropped>) {
        match sent {
            Ok(bytes) => {
                self.tx_frames.increment();
                self.tx_bytes.add(*bytes as u64);
            }
            Err(Dropped::Malformed) => self.malformed(),
            Err(Dropped::Refused) => {
                self.tx_dropped.increment();
            }
        }
    }

    pub(super) fn values(&self) -> Vec<(&'static str, u64)> {
        vec![
            ("rx_frames", self.rx_frames.get()),
            ("rx_bytes", self.rx_bytes.get()),
            ("rx_starved", self.rx_starved.get()),
            ("tx_frames", self.tx_frames.get()),
            ("tx_bytes", self.tx_bytes.get()),
            ("tx_dropped", self.tx_dropped.get()),
            ("malformed", self.malformed.get()),
        ]
    }
}
