use vm_memory::{Bytes, GuestAddress};

use super::*;
use crate::{
    devices::{
        interrupt::Interrupt,
        testing::{Buffer, Ring},
    },
    event_loop::EventLoop,
    memory::{HUGE_PAGE, Memory},
};

const AT: u64 = 0x10_0000;

fn buffer(len: u32) -> Buffer {
    Buffer { address: AT, len, writable: true }
}

/// Serves one chain from a source of sevens; the bytes written.
fn filled(chain: &[Buffer]) -> (io::Result<u32>, Memory) {
    let memory = Memory::anonymous(HUGE_PAGE).unwrap();
    let mut ring = Ring::new(&memory, 0x1000, 8);
    let mut active = ring.activate();
    ring.offer(chain);
    let chain = active.pop(&*memory).unwrap().unwrap();
    (queue::fill(&memory, chain, &mut io::repeat(7)), memory)
}

#[test]
fn a_buffer_is_filled_and_no_byte_more() {
    let (written, memory) = filled(&[buffer(5)]);
    assert_eq!(written.unwrap(), 5);
    assert_eq!(memory.read_obj::<[u8; 7]>(GuestAddress(AT)).unwrap(), [7, 7, 7, 7, 7, 0, 0]);
}

#[test]
fn a_huge_claim_gets_one_portion() {
    let (written, memory) = filled(&[buffer(1 << 20)]);
    assert_eq!(written.unwrap(), 4096);
    assert_eq!(memory.read_obj::<u8>(GuestAddress(AT + 4096)).unwrap(), 0);
}

#[test]
fn buffers_that_cannot_be_written_get_nothing() {
    assert_eq!(filled(&[Buffer { writable: false, ..buffer(16) }]).0.unwrap(), 0);
    assert!(filled(&[Buffer { address: HUGE_PAGE as u64, ..buffer(16) }]).0.is_err());
}

#[test]
fn the_device_serves_its_queue_on_the_loop_and_stops_at_reset() {
    let event_loop = EventLoop::spawn().unwrap();
    let memory = Memory::anonymous(HUGE_PAGE).unwrap();
    let mut ring = Ring::new(&memory, 0x1000, 8);
    ring.offer(&[buffer(64)]);
    let interrupt = Arc::new(Interrupt::new().unwrap());
    let mut rng = Rng::new(event_loop.handle());
    let queues = vec![ring.activate()];
    let activation =
        Activation { memory: memory.clone(), queues, interrupt: Arc::clone(&interrupt), features: 0 };
    rng.activate(activation).unwrap();
    // `activate` returns after the first pass, which needs no kick.
    assert_eq!(ring.used(), Some((0, 64)));
    assert_ne!(memory.read_obj::<[u8; 32]>(GuestAddress(AT)).unwrap(), [0; 32]);
    assert_eq!(interrupt.raised(), 1);
    assert!(rng.metrics().contains(&("bytes", 64)));
    rng.reset();
    rng.reset();
    assert_eq!(Arc::strong_count(&interrupt), 1, "the worker is gone");
}
