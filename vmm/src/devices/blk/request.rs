//! One descriptor chain is one request (virtio 1.2, 5.2.6): what it asks for, where its data is, and where the answer goes.
//!
//!   readable: header (16 bytes), data to write      writable: data that is read, status (1 byte, the last)
//!
//! The border between the two kinds of data is where the driver has put it: no descriptor is expected to be the header or the
//! status alone. All lengths are claims, and nothing is copied here but the header.

use virtio_bindings::virtio_blk::{
    VIRTIO_BLK_T_DISCARD, VIRTIO_BLK_T_FLUSH, VIRTIO_BLK_T_GET_ID, VIRTIO_BLK_T_IN, VIRTIO_BLK_T_OUT,
    VIRTIO_BLK_T_WRITE_ZEROES,
};
use virtio_queue::DescriptorChain;
use vm_memory::{ByteValued, Bytes as _, GuestAddress, GuestMemoryMmap};

use crate::memory::{Memory, guest_part};

/// Parts of the data of a request: two less than a chain may have.
pub(super) const SEGMENTS: usize = super::QUEUE_SIZE as usize - 2;
/// Bytes of one part.
pub(super) const SEGMENT_BYTES: u32 = 64 << 10;
/// Bytes of the data of a request: what it may hold a worker up for.
const DATA_BYTES: usize = SEGMENTS * SEGMENT_BYTES as usize;
/// `struct virtio_blk_outhdr`: type, a reserved word, sector.
const HEADER: usize = 16;

/// What a request asks for, by its type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Operation {
    Read,
    Write,
    Flush,
    Serial,
    Discard,
    WriteZeroes,
    /// Nothing that was offered, or no header.
    Unknown,
}

impl Operation {
    fn of(kind: u32) -> Self {
        match kind {
            VIRTIO_BLK_T_IN => Self::Read,
            VIRTIO_BLK_T_OUT => Self::Write,
            VIRTIO_BLK_T_FLUSH => Self::Flush,
            VIRTIO_BLK_T_GET_ID => Self::Serial,
            VIRTIO_BLK_T_DISCARD => Self::Discard,
            VIRTIO_BLK_T_WRITE_ZEROES => Self::WriteZeroes,
            _ => Self::Unknown,
        }
    }
}

#[derive(Debug)]
pub(super) struct Request {
    pub(super) operation: Operation,
    pub(super) sector: u64,
    /// What the driver gives, behind the header.
    pub(super) given: Parts,
    /// What the driver wants filled.
    pub(super) wanted: Parts,
    pub(super) status: GuestAddress,
}

impl Request {
    /// `None`: there is no place for a status, or more than a driver may send.
    pub(super) fn of<M>(memory: &GuestMemoryMmap, chain: DescriptorChain<M>) -> Option<Self>
    where
        M: std::ops::Deref<Target = GuestMemoryMmap> + Clone,
    {
        let (mut given, mut wanted) = (Parts::default(), Parts::default());
        // The header and the status may have a descriptor each.
        for (number, descriptor) in chain.enumerate() {
            if number >= SEGMENTS + 2 {
                return None;
            }
            let parts = if descriptor.is_write_only() { &mut wanted } else { &mut given };
            parts.push(descriptor.addr(), descriptor.len() as usize);
        }
        let status = wanted.take_last()?;
        let mut header = [0_u64; HEADER / 8];
        let whole = given.take_first(memory, ByteValued::as_mut_slice(&mut header));
        if given.bytes() > DATA_BYTES || wanted.bytes() > DATA_BYTES {
            return None;
        }
        // The type, with a reserved word above it.
        let [kind, sector] = header.map(u64::from_le);
        let operation = if whole { Operation::of(kind as u32) } else { Operation::Unknown };
        Some(Self { operation, sector, given, wanted, status })
    }
}

/// Ranges of guest memory, one after the other; none is empty.
#[derive(Debug, Default)]
pub(super) struct Parts(Vec<(GuestAddress, usize)>);

impl Parts {
    fn push(&mut self, address: GuestAddress, len: usize) {
        if len > 0 {
            self.0.push((address, len));
        }
    }

    /// At most `SEGMENTS` + 2 times 4 GiB.
    pub(super) fn bytes(&self) -> usize {
        self.0.iter().map(|(_, len)| len).sum()
    }

    /// Takes the last byte off: its address.
    fn take_last(&mut self) -> Option<GuestAddress> {
        let (address, len) = self.0.pop()?;
        let last = len - 1;
        self.push(address, last);
        address.0.checked_add(last as u64).map(GuestAddress)
    }

    /// Copies the first bytes and takes them off; false when there are not so many.
    pub(super) fn take_first(&mut self, memory: &GuestMemoryMmap, bytes: &mut [u8]) -> bool {
        let mut left = bytes;
        let mut taken = 0;
        for (address, len) in &mut self.0 {
            if left.is_empty() {
                break;
            }
            let count = left.len().min(*len);
            let (piece, rest) = left.split_at_mut(count);
            if memory.read_slice(piece, *address).is_err() {
                return false;
            }
            // What was read exists, so the address behind it is a number.
            *address = GuestAddress(address.0.wrapping_add(count as u64));
            *len -= count;
            taken += usize::from(*len == 0);
            left = rest;
        }
        let whole = left.is_empty();
        self.0.drain(..taken);
        whole
    }

    /// Copies these bytes to the first that there are; how many there was room for.
    pub(super) fn fill(&self, memory: &GuestMemoryMmap, bytes: &[u8]) -> Option<usize> {
        let mut left = bytes;
        for (address, len) in &self.0 {
            let (piece, rest) = left.split_at(left.len().min(*len));
            memory.write_slice(piece, *address).ok()?;
            left = rest;
        }
        Some(bytes.len() - left.len())
    }

    /// As the kernel takes them. `None` when a part is no memory.
    pub(super) fn vectors(&self, memory: &Memory) -> Option<Vec<libc::iovec>> {
        self.0.iter().map(|(address, len)| guest_part(memory, *address, *len)).collect()
    }
}
