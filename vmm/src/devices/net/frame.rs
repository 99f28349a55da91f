//! One frame: its header, its bounds, and its bytes in guest memory as the host kernel takes them.

use vm_memory::{GuestAddress, GuestMemory, GuestMemoryMmap};

/// `struct virtio_net_hdr_v1` (virtio 1.2, 5.1.6): flags, gso_type, then four 16-bit fields, num_buffers last.
pub(super) const HEADER: usize = 12;
pub(super) const NUM_BUFFERS: usize = 10;
/// The largest segment the kernel makes (GSO_LEGACY_MAX_SIZE) with an Ethernet header and a VLAN tag.
pub(super) const FRAME_MAX: usize = 65_536 + 14 + 4;

/// A frame that did not get to the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dropped {
    /// The chain or its header is wrong.
    Malformed,
    /// The host kernel did not take it: numbers that do not fit the frame, a tap that is down, no room.
    Refused,
}

pub(super) fn part(bytes: &mut [u8]) -> libc::iovec {
    libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() }
}

/// A range of guest memory as the kernel takes it. `None` when a part of the range is no memory, or when it spans two regions.
pub(super) fn guest_part(memory: &GuestMemoryMmap, address: GuestAddress, len: usize) -> Option<libc::iovec> {
    let slice = memory.get_slice(address, len).ok()?;
    Some(libc::iovec { iov_base: slice.ptr_guard_mut().as_ptr().cast(), iov_len: len })
}
