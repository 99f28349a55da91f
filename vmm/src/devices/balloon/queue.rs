//! The work of the balloon: a chain in, whose buffers are memory that the guest does not use.

use virtio_queue::DescriptorChain;
use vm_memory::GuestMemoryMmap;

use super::metrics::BalloonMetrics;
use crate::memory::Memory;

/// Ranges taken from one chain: what Linux puts into one. Giving back costs more the larger the range is, and a
/// chain may name all of memory in each of its descriptors.
const MAX_RANGES: usize = 32;

/// Gives the buffers back to the host (virtio 1.2, 5.5.6.7). Only those the device may write to: the others hold
/// something for it to read.
pub(super) fn give_back(memory: &Memory, chain: DescriptorChain<&GuestMemoryMmap>, metrics: &BalloonMetrics) {
    metrics.report();
    for range in chain.writable().take(MAX_RANGES) {
        match memory.discard(range.addr().0, range.len().into()) {
            Ok(bytes) => metrics.given_back(bytes),
            Err(error) => {
                metrics.error();
                crate::log::limited(&error);
            }
        }
    }
}
