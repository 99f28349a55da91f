//! The work of the memory device: one request in, one reply out (virtio 1.2, 5.15.6).

use std::io::{self, Read, Write};

use virtio_queue::{DescriptorChain, Reader, Writer};
use vm_memory::GuestMemoryMmap;

use super::{
    metrics::MemMetrics,
    room::{Reply, Room, State},
};
use crate::memory::Memory;

/// struct virtio_mem_req: type and padding, then address, number of blocks and padding.
const REQUEST: usize = 24;
/// struct virtio_mem_resp: type and padding, then the state.
const REPLY: usize = 10;

const PLUG: u16 = 0;
const UNPLUG: u16 = 1;
const UNPLUG_ALL: u16 = 2;
const STATE: u16 = 3;

/// Serves a request; returns the bytes written. A chain that is too short for either is an error.
pub(super) fn answer(
    memory: &Memory,
    chain: DescriptorChain<&GuestMemoryMmap>,
    room: &Room,
    metrics: &MemMetrics,
) -> io::Result<u32> {
    let mut request = [0; REQUEST];
    Reader::new(&**memory, chain.clone()).map_err(io::Error::other)?.read_exact(&mut request)?;
    let mut writer = Writer::new(&**memory, chain).map_err(io::Error::other)?;
    if writer.available_bytes() < REPLY {
        return Err(io::ErrorKind::WriteZero.into());
    }
    let reply = serve(memory, &request, room);
    metrics.count(reply);
    writer.write_all(&encode(reply))?;
    Ok(REPLY as u32)
}

fn serve(memory: &Memory, request: &[u8; REQUEST], room: &Room) -> Reply {
    let [t0, t1, _, _, _, _, _, _, a0, a1, a2, a3, a4, a5, a6, a7, n0, n1, ..] = *request;
    let address = u64::from_le_bytes([a0, a1, a2, a3, a4, a5, a6, a7]);
    let count = u16::from_le_bytes([n0, n1]);
    match u16::from_le_bytes([t0, t1]) {
        PLUG => room.plug(memory, address, count),
        UNPLUG => room.unplug(memory, address, count),
        UNPLUG_ALL => room.unplug_all(memory),
        STATE => room.state(address, count),
        _ => Reply::Error,
    }
}

fn encode(reply: Reply) -> [u8; REPLY] {
    let (kind, state) = match reply {
        Reply::Ack | Reply::State(State::Plugged) => (0, 0),
        Reply::State(State::Unplugged) => (0, 1),
        Reply::State(State::Mixed) => (0, 2),
        Reply::Nack => (1, 0),
        Reply::Busy => (2, 0),
        Reply::Error => (3, 0),
    };
    [kind, 0, 0, 0, 0, 0, 0, 0, state, 0]
}
