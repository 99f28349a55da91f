//! The work of the receive queue: the guest's buffers and a tap in, frames in the buffers.
//!
//! The host kernel copies into guest memory; only the header is made here. Lengths in a chain are claims.

use std::{collections::VecDeque, io};

use virtio_queue::DescriptorChain;
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};
use vmm_sys_util::eventfd::EventFd;

use super::{
    super::queue::{ActiveQueue, QueueError},
    frame::{FRAME_MAX, HEADER, NUM_BUFFERS, part},
    metrics::NetMetrics,
    tap::Tap,
};
use crate::memory::guest_part;

/// Parts of a chain; Linux makes one. With all 256 chains these are fewer than readv takes (IOV_MAX).
const PARTS: usize = 3;

/// A chain that the driver gave to receive into: its parts lie in guest memory and hold a header at least.
#[derive(Debug, Clone, Copy)]
struct Buffer {
    head: u16,
    parts: [(GuestAddress, u32); PARTS],
    len: usize,
}

impl Buffer {
    fn parse(memory: &GuestMemoryMmap, chain: DescriptorChain<&GuestMemoryMmap>) -> Option<Self> {
        let mut buffer = Self { head: chain.head_index(), parts: [(GuestAddress(0), 0); PARTS], len: 0 };
        let mut places = buffer.parts.iter_mut();
        for descriptor in chain {
            guest_part(memory, descriptor.addr(), descriptor.len() as usize)?;
            if !descriptor.is_write_only() {
                return None;
            }
            *places.next()? = (descriptor.addr(), descriptor.len());
            buffer.len = buffer.len.saturating_add(descriptor.len() as usize);
        }
        (buffer.len >= HEADER).then_some(buffer)
    }
}

/// What one turn has done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Received {
    pub(super) frames: usize,
    /// The guest has not given buffers for the largest frame; its next kick is awaited.
    pub(super) starved: bool,
}

#[derive(Debug, thiserror::Error)]
pub(super) enum ReceiveError {
    #[error(transparent)]
    Ring(#[from] QueueError),
    #[error("read the tap")]
    Tap(#[source] io::Error),
}

/// The receive queue, and the buffers taken from it that wait for a frame.
#[derive(Debug)]
pub(super) struct Receiver {
    queue: ActiveQueue,
    buffers: VecDeque<Buffer>,
    /// Bytes of all of them.
    room: usize,
}

impl Receiver {
    pub(super) fn new(queue: ActiveQueue) -> Self {
        Self { queue, buffers: VecDeque::new(), room: 0 }
    }

    pub(super) fn kick(&self) -> &EventFd {
        self.queue.kick()
    }

    pub(super) fn clear_kick(&self) {
        self.queue.clear_kick();
    }

    pub(super) fn needs_interrupt(&mut self, memory: &GuestMemoryMmap) -> bool {
        self.queue.needs_interrupt(memory)
    }

    /// Moves at most `turn` frames into the guest.
    pub(super) fn pump(
        &mut self,
        memory: &GuestMemoryMmap,
        tap: &Tap,
        turn: usize,
        metrics: &NetMetrics,
    ) -> Result<Received, ReceiveError> {
        let mut parts = Vec::new();
        let mut header = [0; HEADER];
        let mut frames = 0;
        while frames < turn {
            if !self.refill(memory, metrics)? {
                metrics.starved();
                return Ok(Received { frames, starved: true });
            }
            parts.clear();
            parts.push(part(&mut header));
            self.gather(memory, &mut parts);
            // SAFETY: the first part is `header`, which lives here; the others are ranges of guest memory, checked
            // by `guest_part`, which stays mapped as long as `memory` and which nobody has references to.
            let read = match unsafe { tap.read(&parts) } {
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(ReceiveError::Tap(error)),
            };
            self.deliver(memory, &mut header, read)?;
            metrics.received(read.saturating_sub(HEADER));
            frames += 1;
        }
        Ok(Received { frames, starved: false })
    }

    /// Takes buffers until they hold the largest frame; false when there are not enough.
    fn refill(&mut self, memory: &GuestMemoryMmap, metrics: &NetMetrics) -> Result<bool, QueueError> {
        loop {
            while self.room < HEADER + FRAME_MAX && self.buffers.len() < usize::from(self.queue.size()) {
                let Some(chain) = self.queue.pop(memory)? else { break };
                let head = chain.head_index();
                match Buffer::parse(memory, chain) {
                    Some(buffer) => {
                        self.room += buffer.len;
                        self.buffers.push_back(buffer);
                    }
                    None => {
                        metrics.malformed();
                        self.queue.push(memory, head, 0)?;
                    }
                }
            }
            if self.room >= HEADER + FRAME_MAX {
                self.queue.disable_kicks(memory)?;
                return Ok(true);
            }
            // A whole ring of buffers too small for a frame: no kick can come, and none is waited for.
            let full = self.buffers.len() >= usize::from(self.queue.size());
            if full || !self.queue.enable_kicks(memory)? {
                return Ok(false);
            }
        }
    }

    /// All buffers as the kernel takes them, but for the place of the header in the first.
    fn gather(&self, memory: &GuestMemoryMmap, parts: &mut Vec<libc::iovec>) {
        let mut skip = HEADER;
        for (address, len) in self.buffers.iter().flat_map(|buffer| buffer.parts) {
            let skipped = skip.min(len as usize);
            skip -= skipped;
            let address = GuestAddress(address.0.saturating_add(skipped as u64));
            // Checked when the buffer was taken; an empty part needs no place.
            parts.extend(guest_part(memory, address, len as usize - skipped).filter(|part| part.iov_len > 0));
        }
    }

    /// Returns the buffers that a frame of `read` bytes, header included, lies in.
    fn deliver(
        &mut self,
        memory: &GuestMemoryMmap,
        header: &mut [u8; HEADER],
        read: usize,
    ) -> Result<(), QueueError> {
        let mut left = read.max(HEADER);
        let mut used = Vec::new();
        let mut first = None;
        while left > 0
            && let Some(buffer) = self.buffers.pop_front()
        {
            self.room -= buffer.len;
            let len = left.min(buffer.len);
            left -= len;
            // At most a frame, which is far below 4 GiB.
            used.push((buffer.head, len as u32));
            first.get_or_insert(buffer);
        }
        // At most one ring of them.
        let count = (used.len() as u16).to_le_bytes();
        header[NUM_BUFFERS..].copy_from_slice(&count);
        if let Some(first) = first {
            let mut rest: &[u8] = header;
            for (address, len) in first.parts {
                let (piece, after) = rest.split_at(rest.len().min(len as usize));
                // Checked when the buffer was taken.
                let _ = memory.write_slice(piece, address);
                rest = after;
            }
        }
        self.queue.push_all(memory, &used)
    }
}
