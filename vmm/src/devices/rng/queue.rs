//! The work of the entropy device: a chain and a source in, the number of bytes written out.

use std::io::{self, Read, Write};

use virtio_queue::{DescriptorChain, Writer};
use vm_memory::GuestMemoryMmap;

/// Bytes given for one request. A driver that wants more asks again; one page may appear in a chain many times, so
/// the chain's length is a claim and not memory that the guest gave up.
const MAX_REQUEST: usize = 4096;

/// Fills the writable part of a chain (virtio 1.2, 5.4.6).
pub(super) fn fill(
    memory: &GuestMemoryMmap,
    chain: DescriptorChain<&GuestMemoryMmap>,
    source: &mut impl Read,
) -> io::Result<u32> {
    let mut writer = Writer::new(memory, chain).map_err(io::Error::other)?;
    let mut bytes = [0; MAX_REQUEST];
    let wanted = writer.available_bytes().min(MAX_REQUEST);
    let (bytes, _) = bytes.split_at_mut(wanted);
    source.read_exact(bytes)?;
    writer.write_all(bytes)?;
    Ok(wanted as u32)
}
