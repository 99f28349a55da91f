use vm_memory::{Bytes, GuestAddress};

use super::*;
use crate::{
    devices::{
        interrupt::Interrupt,
        testing::{Buffer, Ring},
    },
    event_loop::EventLoop,
    memory::{HUGE_PAGE, MEMORY_BLOCK, Memory},
};

const REGION: u64 = 4 << 30;
const REQUEST_AT: u64 = 0x8000;
const REPLY_AT: u64 = 0x9000;
const PLUG: u16 = 0;
const UNPLUG: u16 = 1;
const UNPLUG_ALL: u16 = 2;
const STATE: u16 = 3;
const ACK: (u16, u16) = (0, 0);
const NACK: (u16, u16) = (1, 0);
const ERROR: (u16, u16) = (3, 0);
const UNPLUGGED: (u16, u16) = (0, 1);
const MIXED: (u16, u16) = (0, 2);

/// A driver with room for 64 blocks.
struct Driver {
    memory: Memory,
    room: Room,
    ring: Ring,
    queue: ActiveQueue,
    metrics: MemMetrics,
}

impl Driver {
    fn allowed(blocks: u64) -> Self {
        let memory = Memory::growing(HUGE_PAGE, MEMORY_BLOCK).unwrap();
        let room = Room::new(memory.hotplug().unwrap());
        room.resize(blocks * BLOCK);
        let ring = Ring::new(&memory, 0x1000, 16);
        let queue = ring.activate();
        Self { memory, room, ring, queue, metrics: MemMetrics::default() }
    }

    /// Type and state of the reply.
    fn ask(&mut self, kind: u16, block: u64, count: u16) -> (u16, u16) {
        self.ask_at(kind, block_address(block), count)
    }

    fn ask_at(&mut self, kind: u16, address: u64, count: u16) -> (u16, u16) {
        self.ring.put(REQUEST_AT, u64::from(kind));
        self.ring.put(REQUEST_AT + 8, address);
        self.ring.put(REQUEST_AT + 16, u64::from(count));
        self.ring.put(REPLY_AT, [0xff_u8; 10]);
        assert_eq!(self.offer(24, 10).unwrap(), 10);
        let read = |at| self.memory.read_obj::<u16>(GuestAddress(at)).unwrap();
        (read(REPLY_AT), read(REPLY_AT + 8))
    }

    fn offer(&mut self, request: u32, reply: u32) -> io::Result<u32> {
        self.ring.offer(&[
            Buffer { address: REQUEST_AT, len: request, writable: false },
            Buffer { address: REPLY_AT, len: reply, writable: true },
        ]);
        let chain = self.queue.pop(&*self.memory).unwrap().unwrap();
        queue::answer(&self.memory, chain, &self.room, &self.metrics)
    }

    fn plugged(&self) -> u64 {
        self.room.plugged() / BLOCK
    }
}

fn block_address(block: u64) -> u64 {
    REGION + block * BLOCK
}

#[test]
fn blocks_are_plugged_used_and_unplugged_and_come_back_as_zeros() {
    let mut driver = Driver::allowed(4);
    assert_eq!(driver.ask(PLUG, 2, 3), ACK);
    let at = GuestAddress(block_address(3));
    driver.memory.write_obj(7_u8, at).unwrap();
    assert_eq!(driver.ask(UNPLUG, 3, 1), ACK);
    assert_eq!(driver.plugged(), 2);
    assert_eq!(driver.ask(PLUG, 3, 1), ACK);
    assert_eq!(driver.memory.read_obj::<u8>(at).unwrap(), 0);
}

#[test]
fn a_driver_gets_what_the_host_allows_and_no_block_more() {
    let mut driver = Driver::allowed(4);
    assert_eq!(driver.ask(PLUG, 0, 5), NACK);
    assert_eq!(driver.ask(PLUG, 0, 4), ACK);
    assert_eq!(driver.ask(PLUG, 4, 1), NACK);
    // Less than it has: nothing is taken away, and nothing more is given.
    driver.room.resize(BLOCK);
    assert_eq!(driver.plugged(), 4);
    assert_eq!(driver.ask(UNPLUG, 0, 2), ACK);
    assert_eq!(driver.ask(PLUG, 0, 1), NACK);
    assert_eq!(driver.ask(PLUG, 60, 4), NACK);
}

#[test]
fn a_size_is_rounded_to_blocks_and_ends_with_the_region() {
    let driver = Driver::allowed(0);
    driver.room.resize(1);
    assert_eq!(driver.room.requested(), BLOCK);
    driver.room.resize(1 << 40);
    assert_eq!(driver.room.requested(), MEMORY_BLOCK as u64);
}

#[test]
fn blocks_that_are_plugged_already_or_not_at_all_are_errors() {
    let mut driver = Driver::allowed(64);
    assert_eq!(driver.ask(UNPLUG, 0, 1), ERROR);
    assert_eq!(driver.ask(PLUG, 0, 2), ACK);
    assert_eq!(driver.ask(PLUG, 1, 2), ERROR);
    assert_eq!(driver.ask(UNPLUG, 1, 2), ERROR);
    assert_eq!(driver.plugged(), 2);
    assert_eq!(driver.metrics.values(), [("requests", 4), ("refused", 3), ("errors", 0)]);
}

#[test]
fn blocks_that_do_not_exist_are_errors_whatever_is_asked_for() {
    let mut driver = Driver::allowed(64);
    for kind in [PLUG, UNPLUG, STATE] {
        for (address, count) in [
            (0, 1),
            (REGION - BLOCK, 1),
            (REGION, 0),
            (REGION + 4096, 1),
            (REGION, 65),
            (REGION, u16::MAX),
            (block_address(63), 2),
            (block_address(64), 1),
            (u64::MAX - BLOCK + 1, 1),
            (u64::MAX, u16::MAX),
        ] {
            assert_eq!(driver.ask_at(kind, address, count), ERROR, "{kind} {address:#x} {count}");
        }
    }
    assert_eq!(driver.ask(4, 0, 1), ERROR);
    assert_eq!(driver.ask(u16::MAX, 0, 1), ERROR);
    assert_eq!(driver.plugged(), 0);
}

#[test]
fn states_are_told_for_any_range() {
    let mut driver = Driver::allowed(64);
    assert_eq!(driver.ask(PLUG, 1, 2), ACK);
    assert_eq!(driver.ask(STATE, 1, 2), ACK, "plugged is 0 as well");
    assert_eq!(driver.ask(STATE, 3, 61), UNPLUGGED);
    assert_eq!(driver.ask(STATE, 0, 2), MIXED);
}

#[test]
fn all_can_be_unplugged_at_once() {
    let mut driver = Driver::allowed(64);
    for block in [0, 7, 63] {
        assert_eq!(driver.ask(PLUG, block, 1), ACK);
    }
    assert_eq!(driver.ask(UNPLUG_ALL, 0, 0), ACK);
    assert_eq!(driver.plugged(), 0);
    assert_eq!(driver.ask(STATE, 0, 64), UNPLUGGED);
}

#[test]
fn chains_too_short_for_request_or_reply_change_nothing() {
    let mut driver = Driver::allowed(64);
    driver.ring.put(REQUEST_AT, u64::from(PLUG));
    driver.ring.put(REQUEST_AT + 8, REGION);
    driver.ring.put(REQUEST_AT + 16, 1_u64);
    assert!(driver.offer(23, 10).is_err());
    assert!(driver.offer(24, 9).is_err());
    assert_eq!(driver.plugged(), 0);
}

/// A device on its loop, and its interrupt.
fn device(features: u64) -> (EventLoop, Mem, Arc<Room>, Result<Arc<Interrupt>, ActivateError>) {
    let event_loop = EventLoop::spawn().unwrap();
    let memory = Memory::growing(HUGE_PAGE, MEMORY_BLOCK).unwrap();
    let room = Arc::new(Room::new(memory.hotplug().unwrap()));
    let mut mem = Mem::new(event_loop.handle(), Arc::clone(&room));
    let ring = Ring::new(&memory, 0x1000, 16);
    let interrupt = Arc::new(Interrupt::new().unwrap());
    let queues = vec![ring.activate()];
    let activation = Activation { memory, queues, interrupt: Arc::clone(&interrupt), features };
    let activated = mem.activate(activation).map(|()| interrupt);
    (event_loop, mem, room, activated)
}

#[test]
fn a_new_size_shows_in_config_space_and_the_driver_is_told() {
    let (_event_loop, mut mem, room, interrupt) = device(UNPLUGGED_INACCESSIBLE);
    let interrupt = interrupt.unwrap();
    room.resize(3 * BLOCK);
    assert_eq!(interrupt.raised(), 1);
    let mut config = [0; 56];
    mem.read_config(0, &mut config);
    let words: Vec<u64> = config.chunks(8).map(|word| u64::from_le_bytes(word.try_into().unwrap())).collect();
    let size = MEMORY_BLOCK as u64;
    assert_eq!(words, [BLOCK, 0, REGION, size, size, 0, 3 * BLOCK]);
    mem.reset();
    room.resize(0);
    assert_eq!(interrupt.raised(), 1, "a device that was reset has no driver");
    assert_eq!(Arc::strong_count(&interrupt), 1, "the worker is gone");
}

#[test]
fn a_driver_that_would_read_unplugged_memory_is_refused() {
    let (_event_loop, _mem, _room, activated) = device(0);
    assert!(activated.is_err());
}
