//! The work of the network device: chains and a tap in, frames out. No thread, no eventfd, no KVM.
//!
//! The kernel copies between the tap and guest memory; only the header is copied here, checked, and used as the copy.
//! Lengths in a chain are claims: a frame is at most `FRAME_MAX` bytes, in at most so many parts.

use std::{collections::VecDeque, io};

use virtio_bindings::virtio_net::{
    VIRTIO_NET_F_CSUM, VIRTIO_NET_F_GUEST_CSUM, VIRTIO_NET_F_GUEST_TSO4, VIRTIO_NET_F_GUEST_TSO6,
    VIRTIO_NET_F_GUEST_USO4, VIRTIO_NET_F_GUEST_USO6, VIRTIO_NET_F_HOST_TSO4, VIRTIO_NET_F_HOST_TSO6,
    VIRTIO_NET_F_HOST_USO, VIRTIO_NET_HDR_F_NEEDS_CSUM, VIRTIO_NET_HDR_GSO_NONE, VIRTIO_NET_HDR_GSO_TCPV4,
    VIRTIO_NET_HDR_GSO_TCPV6, VIRTIO_NET_HDR_GSO_UDP_L4,
};
use virtio_queue::DescriptorChain;
use vm_memory::{Bytes, GuestAddress, GuestMemory, GuestMemoryMmap};
use vmm_sys_util::eventfd::EventFd;

use super::{
    super::queue::{ActiveQueue, QueueError},
    metrics::NetMetrics,
    tap::Tap,
};

/// `struct virtio_net_hdr_v1` (virtio 1.2, 5.1.6): flags, gso_type, then four 16-bit fields, num_buffers last.
pub(super) const HEADER: usize = 12;
const NUM_BUFFERS: usize = 10;
/// The largest segment the kernel makes (GSO_LEGACY_MAX_SIZE) with an Ethernet header and a VLAN tag.
const FRAME_MAX: usize = 65_536 + 14 + 4;
/// Parts of a transmit chain; Linux makes MAX_SKB_FRAGS + 2 = 19, header included.
const TRANSMIT_PARTS: usize = 64;
/// Parts of a receive chain; Linux makes one. With all 256 chains these are fewer than readv takes (IOV_MAX).
const RECEIVE_PARTS: usize = 3;

/// What the driver and the device do not do before a frame crosses: the acknowledged feature bits.
#[derive(Debug, Clone, Copy)]
pub(super) struct Offloads(u64);

impl Offloads {
    pub(super) fn of(features: u64) -> Self {
        Self(features)
    }

    fn has(self, bit: u32) -> bool {
        self.0 & 1 << bit != 0
    }

    /// As the tap is told: `TUN_F_*`. Segmentation without checksums is not known there.
    pub(super) fn to_guest(self) -> libc::c_uint {
        if !self.has(VIRTIO_NET_F_GUEST_CSUM) {
            return 0;
        }
        let both = [
            (VIRTIO_NET_F_GUEST_TSO4, libc::TUN_F_TSO4),
            (VIRTIO_NET_F_GUEST_TSO6, libc::TUN_F_TSO6),
            (VIRTIO_NET_F_GUEST_USO4, libc::TUN_F_USO4),
            (VIRTIO_NET_F_GUEST_USO6, libc::TUN_F_USO6),
        ];
        both.into_iter()
            .filter(|(feature, _)| self.has(*feature))
            .fold(libc::TUN_F_CSUM, |bits, (_, offload)| bits | offload)
    }

    /// Whether a guest's header asks for nothing that was not agreed on. The host kernel checks its numbers against
    /// the frame.
    fn allow(self, header: &[u8; HEADER]) -> bool {
        let [flags, segmentation, ..] = header.map(u32::from);
        let checksum = flags == 0 || flags == VIRTIO_NET_HDR_F_NEEDS_CSUM && self.has(VIRTIO_NET_F_CSUM);
        let segmented = match segmentation {
            VIRTIO_NET_HDR_GSO_NONE => true,
            VIRTIO_NET_HDR_GSO_TCPV4 => self.has(VIRTIO_NET_F_HOST_TSO4),
            VIRTIO_NET_HDR_GSO_TCPV6 => self.has(VIRTIO_NET_F_HOST_TSO6),
            VIRTIO_NET_HDR_GSO_UDP_L4 => self.has(VIRTIO_NET_F_HOST_USO),
            _ => false,
        };
        checksum && segmented
    }
}

/// A frame that did not get to the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dropped {
    /// The chain or its header is wrong.
    Malformed,
    /// The host kernel did not take it: numbers that do not fit the frame, a tap that is down, no room.
    Refused,
}

/// Sends the frame of one chain; the bytes behind the header.
pub(super) fn transmit(
    memory: &GuestMemoryMmap,
    chain: DescriptorChain<&GuestMemoryMmap>,
    tap: &Tap,
    offloads: Offloads,
) -> Result<usize, Dropped> {
    let mut header = [0; HEADER];
    let mut copied = 0;
    let mut frame = 0;
    let mut parts = Vec::with_capacity(TRANSMIT_PARTS + 1);
    parts.push(part(&mut header));
    for descriptor in chain.readable() {
        let (mut address, mut len) = (descriptor.addr(), descriptor.len() as usize);
        if copied < HEADER {
            let piece = len.min(HEADER - copied);
            let place = header.get_mut(copied..copied + piece).ok_or(Dropped::Malformed)?;
            memory.read_slice(place, address).map_err(|_| Dropped::Malformed)?;
            address = GuestAddress(address.0.saturating_add(piece as u64));
            len -= piece;
            copied += piece;
        }
        if len > 0 {
            frame += len;
            if parts.len() > TRANSMIT_PARTS || frame > FRAME_MAX {
                return Err(Dropped::Malformed);
            }
            parts.push(guest_part(memory, address, len).ok_or(Dropped::Malformed)?);
        }
    }
    if frame == 0 || !offloads.allow(&header) {
        return Err(Dropped::Malformed);
    }
    // SAFETY: the first part is `header`, which lives here; the others are ranges of guest memory, checked by
    // `guest_part`, which stays mapped as long as `memory`. The guest may change them meanwhile, to its own harm: the
    // host kernel reads each byte once, and the header from our copy.
    match unsafe { tap.write(&parts) } {
        Ok(_) => Ok(frame),
        Err(_) => Err(Dropped::Refused),
    }
}

fn part(bytes: &mut [u8]) -> libc::iovec {
    libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() }
}

/// A range of guest memory as the kernel takes it; `None` when it is not all of it memory, in one piece.
fn guest_part(memory: &GuestMemoryMmap, address: GuestAddress, len: usize) -> Option<libc::iovec> {
    let slice = memory.get_slice(address, len).ok()?;
    Some(libc::iovec { iov_base: slice.ptr_guard_mut().as_ptr().cast(), iov_len: len })
}

/// A chain that the driver gave to receive into: its parts lie in guest memory and hold a header at least.
#[derive(Debug, Clone, Copy)]
struct Buffer {
    head: u16,
    parts: [(GuestAddress, u32); RECEIVE_PARTS],
    len: usize,
}

impl Buffer {
    fn parse(memory: &GuestMemoryMmap, chain: DescriptorChain<&GuestMemoryMmap>) -> Option<Self> {
        let mut buffer =
            Self { head: chain.head_index(), parts: [(GuestAddress(0), 0); RECEIVE_PARTS], len: 0 };
        let mut places = buffer.parts.iter_mut();
        for descriptor in chain {
            guest_part(memory, descriptor.addr(), descriptor.len() as usize)
                .filter(|_| descriptor.is_write_only())?;
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
