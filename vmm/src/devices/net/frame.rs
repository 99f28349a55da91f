//! One frame: its header and its bounds.

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
