//! Counters of the vsock device: bytes and packets by direction, streams by fate, and what a guest did wrong.
//!
//! Written by the loop thread, read by the control thread.

use crate::counter::Counter;

#[derive(Debug, Default)]
pub(super) struct VsockMetrics {
    /// Packets from and to the guest, of any kind.
    pub(super) packets_from_guest: Counter,
    pub(super) packets_to_guest: Counter,
    /// Payload bytes.
    pub(super) bytes_from_guest: Counter,
    pub(super) bytes_to_guest: Counter,
    /// Streams that the guest granted, and that it was granted.
    pub(super) opened: Counter,
    pub(super) accepted: Counter,
    /// Clients turned away: no valid line in time, too many streams, or no answer of the guest.
    pub(super) refused: Counter,
    /// Streams that are over.
    pub(super) closed: Counter,
    /// Packets that broke the protocol; their stream was reset.
    pub(super) violations: Counter,
    /// Packets for no stream that exists.
    pub(super) strays: Counter,
    /// Packets that were dropped: wrong addresses, or too many strays at once.
    pub(super) dropped: Counter,
    /// Descriptor chains without room for a packet, or outside of guest memory.
    pub(super) bad_chains: Counter,
}

impl VsockMetrics {
    pub(super) fn values(&self) -> Vec<(&'static str, u64)> {
        vec![
            ("packets_from_guest", self.packets_from_guest.get()),
            ("packets_to_guest", self.packets_to_guest.get()),
            ("bytes_from_guest", self.bytes_from_guest.get()),
            ("bytes_to_guest", self.bytes_to_guest.get()),
            ("opened", self.opened.get()),
            ("accepted", self.accepted.get()),
            ("refused", self.refused.get()),
            ("closed", self.closed.get()),
            ("violations", self.violations.get()),
            ("strays", self.strays.get()),
            ("dropped", self.dropped.get()),
            ("bad_chains", self.bad_chains.get()),
        ]
    }
}
