//! The work of the console: a chain in, its bytes out in pieces.

use std::io::{self, Read};

use virtio_queue::{DescriptorChain, Reader};
use vm_memory::GuestMemoryMmap;

/// Bytes taken from one chain. Linux sends a page at most; what is above it is dropped.
const MAX_CHAIN: usize = 64 << 10;
const PIECE: usize = 4096;

/// Hands the readable part of a chain to `sink`.
pub(super) fn take(
    memory: &GuestMemoryMmap,
    chain: DescriptorChain<&GuestMemoryMmap>,
    mut sink: impl FnMut(&[u8]),
) -> io::Result<()> {
    let mut reader = Reader::new(memory, chain).map_err(io::Error::other)?;
    let mut left = reader.available_bytes().min(MAX_CHAIN);
    let mut piece = [0; PIECE];
    while left > 0 {
        let (piece, _) = piece.split_at_mut(left.min(PIECE));
        reader.read_exact(piece)?;
        sink(piece);
        left -= piece.len();
    }
    Ok(())
}
