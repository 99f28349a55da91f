//! Queues: what the driver writes into registers, and what the device gets at DRIVER_OK.
//!
//!   registers ──▶ `QueueSetup` (claims) ──activate──▶ `ActiveQueue` (checked once, then immutable)
//!
//! An active queue's rings lie in guest memory and its size is a power of two within the device's bound, whatever
//! the guest writes later. Chains come from virtio-queue: at most the queue's size in descriptors, or 65535 in one
//! indirect table, never more than 4 GiB; a device must still cap what it copies. Lengths in a chain are claims.

use std::{
    ops::Deref,
    sync::{
        Arc,
        atomic::{Ordering, fence},
    },
};

use serde::{Deserialize, Serialize};
use virtio_bindings::virtio_ring::VRING_AVAIL_F_NO_INTERRUPT;
use virtio_queue::{DescriptorChain, Queue, QueueOwnedT, QueueT};
use vm_memory::{Bytes, GuestAddress, GuestMemory};
use vmm_sys_util::eventfd::EventFd;

use super::interrupt::Interrupt;

#[derive(Debug, thiserror::Error)]
pub enum QueueError {
    #[error("queue {index} is not ready")]
    NotReady { index: usize },
    #[error("queue {index} has {size} entries; a power of two up to {max} is allowed")]
    Size { index: usize, size: u32, max: u16 },
    #[error("the {ring} of queue {index} at {address:#x} is misaligned or outside of guest memory")]
    Address { index: usize, ring: &'static str, address: u64 },
    /// The driver broke the ring (an index out of range); the device asks for reset.
    #[error("use the rings of queue {index}")]
    Ring { index: usize, source: virtio_queue::Error },
}

/// What the driver has claimed so far about one queue.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QueueSetup {
    pub size: u32,
    pub ready: bool,
    pub descriptors: u64,
    pub avail: u64,
    pub used: u64,
}

impl QueueSetup {
    /// The only way from claims to a queue (virtio 1.2, 2.7: sizes and alignments of a split ring).
    ///
    /// # Errors
    /// The queue is not ready, has a size that is not allowed, or a ring that is misaligned or not in `memory`.
    pub fn activate<M: GuestMemory>(
        &self,
        index: usize,
        max: u16,
        event_idx: bool,
        kick: Arc<EventFd>,
        memory: &M,
    ) -> Result<ActiveQueue, QueueError> {
        if !self.ready {
            return Err(QueueError::NotReady { index });
        }
        let refused = QueueError::Size { index, size: self.size, max };
        let Ok(size) = u16::try_from(self.size) else { return Err(refused) };
        if size > max || !size.is_power_of_two() {
            return Err(refused);
        }
        let entries = usize::from(size);
        let rings = [
            ("descriptor table", self.descriptors, 16, 16 * entries),
            ("available ring", self.avail, 2, 6 + 2 * entries),
            ("used ring", self.used, 4, 6 + 8 * entries),
        ];
        for (ring, address, align, len) in rings {
            // virtio-queue takes address 0 as "not set".
            if address == 0
                || !address.is_multiple_of(align)
                || !memory.check_range(GuestAddress(address), len)
            {
                return Err(QueueError::Address { index, ring, address });
            }
        }
        let wrong = |source| QueueError::Ring { index, source };
        let mut queue = Queue::new(max).map_err(wrong)?;
        queue.try_set_size(size).map_err(wrong)?;
        queue.try_set_desc_table_address(GuestAddress(self.descriptors)).map_err(wrong)?;
        queue.try_set_avail_ring_address(GuestAddress(self.avail)).map_err(wrong)?;
        queue.try_set_used_ring_address(GuestAddress(self.used)).map_err(wrong)?;
        queue.set_event_idx(event_idx);
        queue.set_ready(true);
        Ok(ActiveQueue { index, queue, kick, signalled: 0 })
    }
}

/// Where a queue of an activated device starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Position {
    /// At 0, as the driver has just set it up.
    Fresh,
    /// Behind the last chain that was returned, as the used ring in guest memory says. The device that served the queue
    /// before has answered each chain, or none after the first that it has not.
    Resumed,
}

/// One queue between DRIVER_OK and reset. Memory is passed to each call, so that any view of it will do.
#[derive(Debug)]
pub struct ActiveQueue {
    index: usize,
    queue: Queue,
    kick: Arc<EventFd>,
    /// The used index when the driver was asked last whether it wants an interrupt.
    signalled: u16,
}

impl ActiveQueue {
    pub fn index(&self) -> usize {
        self.index
    }

    pub fn size(&self) -> u16 {
        self.queue.size()
    }

    /// Where the rings are: descriptor table, available ring, used ring.
    pub fn rings(&self) -> [u64; 3] {
        [self.queue.desc_table(), self.queue.avail_ring(), self.queue.used_ring()]
    }

    /// How many chains were taken since the driver set the queue up, modulo 65536.
    pub fn taken(&self) -> u16 {
        self.queue.next_avail()
    }

    /// Goes to a position.
    ///
    /// # Errors
    /// The used ring cannot be read.
    pub fn go_to<M: GuestMemory>(&mut self, position: Position, memory: &M) -> Result<(), QueueError> {
        let position = match position {
            Position::Fresh => 0,
            // The guest's word, as the available ring is: what it names is checked when it is taken.
            Position::Resumed => {
                let index = self.index;
                let used = GuestAddress(self.queue.used_ring() + 2);
                let read = memory.read_obj::<u16>(used);
                u16::from_le(read.map_err(|source| QueueError::Ring {
                    index,
                    source: virtio_queue::Error::GuestMemory(source),
                })?)
            }
        };
        self.queue.set_next_avail(position);
        self.queue.set_next_used(position);
        self.signalled = position;
        Ok(())
    }

    /// Readable when the driver has rung the doorbell; non-blocking, read it empty (`clear_kick`).
    pub fn kick(&self) -> &EventFd {
        &self.kick
    }

    /// The same, for who waits without the queue.
    pub fn doorbell(&self) -> Arc<EventFd> {
        Arc::clone(&self.kick)
    }

    pub fn clear_kick(&self) {
        // EAGAIN: a spurious wake-up.
        let _ = self.kick.read();
    }

    /// The next available chain. An error means that the driver broke the ring: call `Interrupt::fail`.
    pub fn pop<M>(&mut self, memory: M) -> Result<Option<DescriptorChain<M>>, QueueError>
    where
        M: Clone + Deref,
        M::Target: GuestMemory,
    {
        let index = self.index;
        let mut available = self.queue.iter(memory).map_err(|source| QueueError::Ring { index, source })?;
        Ok(available.next())
    }

    /// Serves what is available: `each` gets a chain and answers the bytes written to it. Raises the interrupt when
    /// the driver wants it, and leaves kicks enabled. Serves one ring's worth at most and then rings its own
    /// doorbell, so that a busy queue lets others have their turn.
    pub fn serve<M: GuestMemory>(
        &mut self,
        memory: &M,
        interrupt: &Interrupt,
        mut each: impl FnMut(DescriptorChain<&M>) -> u32,
    ) -> Result<(), QueueError> {
        let mut left = self.size();
        let mut more = true;
        while more && left > 0 {
            self.disable_kicks(memory)?;
            let before = left;
            while left > 0
                && let Some(chain) = self.pop(memory)?
            {
                let head = chain.head_index();
                let written = each(chain);
                self.push(memory, head, written)?;
                left -= 1;
            }
            if left < before && self.needs_interrupt(memory) {
                interrupt.signal_queue();
            }
            more = self.enable_kicks(memory)?;
        }
        if more {
            // EAGAIN: the doorbell has been rung already.
            let _ = self.kick.write(1);
        }
        Ok(())
    }

    /// Puts the chain popped last back; the next `pop` returns it again.
    pub fn undo_pop(&mut self) {
        self.queue.go_to_previous_position();
    }

    /// Returns a chain to the driver; `len` bytes of its writable part were written.
    pub fn push<M: GuestMemory>(&mut self, memory: &M, head: u16, len: u32) -> Result<(), QueueError> {
        let index = self.index;
        self.queue.add_used(memory, head, len).map_err(|source| QueueError::Ring { index, source })
    }

    /// Returns several chains so that the driver sees all of them or none: the parts of one merged buffer.
    pub fn push_all<M: GuestMemory>(&mut self, memory: &M, chains: &[(u16, u32)]) -> Result<(), QueueError> {
        let Some(((last, len), others)) = chains.split_last() else { return Ok(()) };
        let index = self.index;
        let mut next = self.queue.next_used();
        for (head, len) in others {
            let entry = [u32::from(*head).to_le(), len.to_le()];
            let at = 4 + 8 * u64::from(next % self.size());
            memory.write_obj(entry, GuestAddress(self.queue.used_ring() + at)).map_err(|source| {
                QueueError::Ring { index, source: virtio_queue::Error::GuestMemory(source) }
            })?;
            next = next.wrapping_add(1);
        }
        self.queue.set_next_used(next);
        // The last one moves the ring's index, past all of them.
        self.push(memory, *last, *len)
    }

    /// Whether the driver wants an interrupt for what was pushed since the last call.
    pub fn needs_interrupt<M: GuestMemory>(&mut self, memory: &M) -> bool {
        // What was pushed must be visible before the driver's wish is read (virtio 1.2, 2.7.13.4.1).
        fence(Ordering::SeqCst);
        let before = std::mem::replace(&mut self.signalled, self.queue.next_used());
        let pushed = self.signalled.wrapping_sub(before);
        // The driver's "no interrupt" flag counts only without EVENT_IDX (virtio 1.2, 2.7.7.2), and virtio-queue
        // leaves it to us. Its own account of EVENT_IDX does not know of `push_all`.
        if !self.queue.event_idx_enabled() {
            let flags = memory.read_obj::<u16>(GuestAddress(self.queue.avail_ring())).unwrap_or(0);
            return u32::from(u16::from_le(flags)) & VRING_AVAIL_F_NO_INTERRUPT == 0;
        }
        let event = GuestAddress(self.queue.avail_ring() + 4 + 2 * u64::from(self.size()));
        let event = memory.read_obj(event).map_or(self.signalled.wrapping_sub(1), u16::from_le);
        self.signalled.wrapping_sub(event).wrapping_sub(1) < pushed
    }

    /// Asks for kicks again; true when chains came in meanwhile and must be processed first.
    pub fn enable_kicks<M: GuestMemory>(&mut self, memory: &M) -> Result<bool, QueueError> {
        let index = self.index;
        self.queue.enable_notification(memory).map_err(|source| QueueError::Ring { index, source })
    }

    pub fn disable_kicks<M: GuestMemory>(&mut self, memory: &M) -> Result<(), QueueError> {
        let index = self.index;
        self.queue.disable_notification(memory).map_err(|source| QueueError::Ring { index, source })
    }

    /// Asks for no kick until `enable_kicks`: whoever calls it looks at the queue meanwhile. A kick may come nevertheless.
    pub fn silence_kicks<M: GuestMemory>(&mut self, memory: &M) -> Result<(), QueueError> {
        if !self.queue.event_idx_enabled() {
            return self.disable_kicks(memory);
        }
        // avail_event (virtio 1.3, 2.7.8): the driver kicks when its index passes that one, which is behind it already.
        let event = GuestAddress(self.queue.used_ring() + 4 + 8 * u64::from(self.size()));
        let passed = self.queue.next_avail().wrapping_sub(1);
        let source = virtio_queue::Error::GuestMemory;
        let index = self.index;
        memory
            .write_obj(passed.to_le(), event)
            .map_err(|error| QueueError::Ring { index, source: source(error) })
    }

    /// Whether the driver has made nothing available that was not taken.
    pub fn is_empty<M: GuestMemory>(&self, memory: &M) -> bool {
        // A ring that cannot be read is for `pop` to report.
        let available = self.queue.avail_idx(memory, Ordering::Acquire).map(|index| index.0);
        available.is_ok_and(|index| index == self.queue.next_avail())
    }
}

#[cfg(test)]
mod tests;

#[cfg(test)]
mod properties;
