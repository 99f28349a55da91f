//! The feature bits: what is offered, and what the acknowledged ones let a frame leave undone.

use virtio_bindings::{
    virtio_net::{
        VIRTIO_NET_F_CSUM, VIRTIO_NET_F_GUEST_CSUM, VIRTIO_NET_F_GUEST_TSO4, VIRTIO_NET_F_GUEST_TSO6,
        VIRTIO_NET_F_GUEST_USO4, VIRTIO_NET_F_GUEST_USO6, VIRTIO_NET_F_HOST_TSO4, VIRTIO_NET_F_HOST_TSO6,
        VIRTIO_NET_F_HOST_USO, VIRTIO_NET_F_MAC, VIRTIO_NET_F_MRG_RXBUF, VIRTIO_NET_F_MTU,
        VIRTIO_NET_F_STATUS, VIRTIO_NET_HDR_F_NEEDS_CSUM, VIRTIO_NET_HDR_GSO_NONE, VIRTIO_NET_HDR_GSO_TCPV4,
        VIRTIO_NET_HDR_GSO_TCPV6, VIRTIO_NET_HDR_GSO_UDP_L4,
    },
    virtio_ring::VIRTIO_RING_F_INDIRECT_DESC,
};

use super::{error::NetError, frame::HEADER};

const ALWAYS: [u32; 11] = [
    VIRTIO_NET_F_CSUM,
    VIRTIO_NET_F_GUEST_CSUM,
    VIRTIO_NET_F_MTU,
    VIRTIO_NET_F_MAC,
    VIRTIO_NET_F_GUEST_TSO4,
    VIRTIO_NET_F_GUEST_TSO6,
    VIRTIO_NET_F_HOST_TSO4,
    VIRTIO_NET_F_HOST_TSO6,
    VIRTIO_NET_F_MRG_RXBUF,
    VIRTIO_NET_F_STATUS,
    VIRTIO_RING_F_INDIRECT_DESC,
];
/// Segmentation of UDP, which not every tap has.
const USO: [u32; 3] = [VIRTIO_NET_F_GUEST_USO4, VIRTIO_NET_F_GUEST_USO6, VIRTIO_NET_F_HOST_USO];

/// The bits that the device offers. `uso`: the tap segments UDP.
pub(super) fn offered(uso: bool) -> u64 {
    let uso: &[u32] = if uso { &USO } else { &[] };
    ALWAYS.iter().chain(uso).fold(0, |bits, bit| bits | 1 << bit)
}

/// Refuses a driver that does not merge receive buffers: frames of 64 KiB need it, and vhost-net and the tap must know the
/// header's size.
pub(super) fn merging(features: u64) -> Result<(), NetError> {
    if features & 1 << VIRTIO_NET_F_MRG_RXBUF == 0 { Err(NetError::NotMerging) } else { Ok(()) }
}

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
    pub(super) fn allow(self, header: &[u8; HEADER]) -> bool {
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
