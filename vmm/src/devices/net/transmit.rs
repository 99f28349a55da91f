//! The work of the transmit queue: a chain in, a frame to the tap.
//!
//! The host kernel copies from guest memory; only the header is copied here, checked, and used as the copy. Lengths in a
//! chain are claims: a frame has at most `FRAME_MAX` bytes, in at most `PARTS` parts.

use virtio_queue::DescriptorChain;
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use super::{
    features::Offloads,
    frame::{Dropped, FRAME_MAX, HEADER, part},
    tap::Tap,
};
use crate::memory::guest_part;

/// Parts of a chain; Linux makes MAX_SKB_FRAGS + 2 = 19, header included.
const PARTS: usize = 64;

/// Sends the frame of one chain; the bytes behind the header.
pub(super) fn send(
    memory: &GuestMemoryMmap,
    chain: DescriptorChain<&GuestMemoryMmap>,
    tap: &Tap,
    offloads: Offloads,
) -> Result<usize, Dropped> {
    let mut header = [0; HEADER];
    let mut copied = 0;
    let mut frame = 0;
    let mut parts = Vec::with_capacity(PARTS + 1);
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
            if parts.len() > PARTS || frame > FRAME_MAX {
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
