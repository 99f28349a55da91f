//! Packets: the header as plain data, and the guest buffers that a descriptor chain names.
//!
//!   chain ──collect──▶ `Buffers` (bounds-checked volatile slices) ──▶ `Header` (copied once, then checked)
//!
//! The guest may change its memory at any moment: a header is read once into `Header` and only that copy is used;
//! payload is never looked at, it goes between guest memory and a socket (virtio 1.3, 5.10.6).

use std::collections::VecDeque;

use virtio_queue::DescriptorChain;
use vm_memory::{GuestMemory, GuestMemoryMmap, VolatileSlice};

/// Bytes of a header.
pub(super) const HEADER: usize = 44;
/// The most payload that one packet carries, in either direction: what Linux sends at most.
pub(super) const MAX_PAYLOAD: u32 = 64 << 10;
/// Descriptors in one chain; Linux uses up to 19.
const MAX_SLICES: usize = 64;

/// VIRTIO_VSOCK_TYPE_STREAM, the only one served.
pub(super) const STREAM: u16 = 1;
/// Flags of `Op::Shutdown`: the sender of the packet will receive, or send, no more.
pub(super) const SHUTDOWN_RECEIVE: u32 = 1;
pub(super) const SHUTDOWN_SEND: u32 = 2;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u16)]
pub(super) enum Op {
    Request = 1,
    Response = 2,
    Reset = 3,
    Shutdown = 4,
    Data = 5,
    CreditUpdate = 6,
    CreditRequest = 7,
}

impl Op {
    pub(super) fn parse(op: u16) -> Option<Self> {
        [
            Self::Request,
            Self::Response,
            Self::Reset,
            Self::Shutdown,
            Self::Data,
            Self::CreditUpdate,
            Self::CreditRequest,
        ]
        .into_iter()
        .find(|known| *known as u16 == op)
    }
}

/// `struct virtio_vsock_hdr`. As the guest sent it: nothing in it is checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) src_cid: u64,
    pub(super) dst_cid: u64,
    pub(super) src_port: u32,
    pub(super) dst_port: u32,
    pub(super) len: u32,
    pub(super) kind: u16,
    pub(super) op: u16,
    pub(super) flags: u32,
    pub(super) buf_alloc: u32,
    pub(super) fwd_cnt: u32,
}

impl Header {
    pub(super) fn parse(bytes: &[u8; HEADER]) -> Self {
        let mut rest = bytes.as_slice();
        Self {
            src_cid: u64::from_le_bytes(take(&mut rest)),
            dst_cid: u64::from_le_bytes(take(&mut rest)),
            src_port: u32::from_le_bytes(take(&mut rest)),
            dst_port: u32::from_le_bytes(take(&mut rest)),
            len: u32::from_le_bytes(take(&mut rest)),
            kind: u16::from_le_bytes(take(&mut rest)),
            op: u16::from_le_bytes(take(&mut rest)),
            flags: u32::from_le_bytes(take(&mut rest)),
            buf_alloc: u32::from_le_bytes(take(&mut rest)),
            fwd_cnt: u32::from_le_bytes(take(&mut rest)),
        }
    }

    pub(super) fn bytes(&self) -> [u8; HEADER] {
        let mut bytes = [0; HEADER];
        let mut rest = bytes.as_mut_slice();
        put(&mut rest, &self.src_cid.to_le_bytes());
        put(&mut rest, &self.dst_cid.to_le_bytes());
        put(&mut rest, &self.src_port.to_le_bytes());
        put(&mut rest, &self.dst_port.to_le_bytes());
        put(&mut rest, &self.len.to_le_bytes());
        put(&mut rest, &self.kind.to_le_bytes());
        put(&mut rest, &self.op.to_le_bytes());
        put(&mut rest, &self.flags.to_le_bytes());
        put(&mut rest, &self.buf_alloc.to_le_bytes());
        put(&mut rest, &self.fwd_cnt.to_le_bytes());
        bytes
    }

    /// The answer to a packet that belongs to no connection.
    pub(super) fn reset_reply(&self) -> Self {
        Self {
            src_cid: self.dst_cid,
            dst_cid: self.src_cid,
            src_port: self.dst_port,
            dst_port: self.src_port,
            len: 0,
            kind: self.kind,
            op: Op::Reset as u16,
            flags: 0,
            buf_alloc: 0,
            fwd_cnt: 0,
        }
    }
}

fn take<const N: usize>(rest: &mut &[u8]) -> [u8; N] {
    let mut field = [0; N];
    // The fields of `Header` add up to HEADER, so the source is never short.
    let (head, tail) = rest.split_at(N);
    field.copy_from_slice(head);
    *rest = tail;
    field
}

fn put(rest: &mut &mut [u8], field: &[u8]) {
    let (head, tail) = std::mem::take(rest).split_at_mut(field.len());
    head.copy_from_slice(field);
    *rest = tail;
}

/// The readable or the writable part of a chain: every slice lies in guest memory and none is empty.
#[derive(Debug)]
pub(super) struct Buffers<'a> {
    slices: Vec<VolatileSlice<'a>>,
    len: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Direction {
    FromGuest,
    ToGuest,
}

impl<'a> Buffers<'a> {
    /// None if a buffer is outside of guest memory or the chain has too many.
    pub(super) fn collect(
        memory: &'a GuestMemoryMmap,
        chain: DescriptorChain<&'a GuestMemoryMmap>,
        direction: Direction,
    ) -> Option<Self> {
        let mut buffers = Self { slices: Vec::with_capacity(2), len: 0 };
        for descriptor in chain {
            let size = descriptor.len() as usize;
            if descriptor.is_write_only() != (direction == Direction::ToGuest) || size == 0 {
                continue;
            }
            if buffers.slices.len() == MAX_SLICES {
                return None;
            }
            buffers.slices.push(memory.get_slice(descriptor.addr(), size).ok()?);
            buffers.len = buffers.len.checked_add(size)?;
        }
        Some(buffers)
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn slices(&self) -> &[VolatileSlice<'a>] {
        &self.slices
    }

    /// The part from `skip` on, at most `limit` bytes of it.
    pub(super) fn part(&self, skip: usize, limit: usize) -> Self {
        let mut part = Self { slices: Vec::with_capacity(self.slices.len()), len: 0 };
        let mut skip = skip;
        for slice in &self.slices {
            let start = skip.min(slice.len());
            skip -= start;
            let size = (slice.len() - start).min(limit - part.len);
            if size == 0 {
                continue;
            }
            // In bounds by the two lines above.
            let Ok(slice) = slice.subslice(start, size) else { continue };
            part.slices.push(slice);
            part.len += size;
        }
        part
    }

    /// Copies all of it to the end of `queue`.
    pub(super) fn append_to(&self, queue: &mut VecDeque<u8>) {
        let mut chunk = [0; 4096];
        queue.reserve(self.len);
        for slice in &self.slices {
            let mut done = 0;
            while done < slice.len() {
                // In bounds by the loop's condition.
                let Ok(rest) = slice.offset(done) else { break };
                let copied = rest.copy_to(&mut chunk);
                queue.extend(&chunk[..copied]);
                done += copied;
            }
        }
    }

    /// Copies out from the start; None if there are too few bytes.
    pub(super) fn read<const N: usize>(&self) -> Option<[u8; N]> {
        let mut bytes = [0; N];
        let mut done = 0;
        for slice in &self.slices {
            done += slice.copy_to(bytes.get_mut(done..)?);
            if done == N {
                return Some(bytes);
            }
        }
        None
    }

    /// Copies in at the start, as much as fits.
    pub(super) fn write(&self, bytes: &[u8]) {
        let mut rest = bytes;
        for slice in &self.slices {
            let size = rest.len().min(slice.len());
            let (head, tail) = rest.split_at(size);
            slice.copy_from(head);
            rest = tail;
        }
    }
}
