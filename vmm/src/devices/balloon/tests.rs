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

const SIZE: u64 = 4 * HUGE_PAGE as u64;
/// Free blocks in the tests; the rings are below.
const AT: u64 = HUGE_PAGE as u64;

fn range(address: u64, len: u32) -> Buffer {
    Buffer { address, len, writable: true }
}

/// Memory full of sevens, but for the ring; the counters after one report.
fn reported(chain: &[Buffer]) -> (Memory, Vec<(&'static str, u64)>) {
    let memory = Memory::anonymous(SIZE as usize).unwrap();
    memory.write_slice(&vec![7; 3 * HUGE_PAGE], GuestAddress(AT)).unwrap();
    let mut ring = Ring::new(&memory, 0x1000, 64);
    let mut active = ring.activate();
    ring.offer(chain);
    let chain = active.pop(&*memory).unwrap().unwrap();
    let metrics = BalloonMetrics::default();
    queue::give_back(&memory, chain, &metrics);
    (memory, metrics.values())
}

fn byte(memory: &Memory, address: u64) -> u8 {
    memory.read_obj(GuestAddress(address)).unwrap()
}

#[test]
fn reported_blocks_go_back_and_their_neighbours_stay() {
    let (memory, metrics) = reported(&[range(AT, 4096), range(AT + 8192, 4096)]);
    assert_eq!([0, 4096, 8192, 12288].map(|at| byte(&memory, AT + at)), [0, 7, 0, 7]);
    assert_eq!(metrics, [("reports", 1), ("reported_bytes", 8192), ("errors", 0)]);
}

#[test]
fn ranges_outside_of_memory_are_counted_and_nothing_else() {
    for (address, len) in [(SIZE, 4096), (SIZE - 4096, 8192), (u64::MAX - 4095, 4096), (1 << 40, u32::MAX)] {
        let (memory, metrics) = reported(&[range(address, len)]);
        assert_eq!(metrics, [("reports", 1), ("reported_bytes", 0), ("errors", 1)]);
        assert_eq!(byte(&memory, SIZE - 4096), 7);
    }
}

#[test]
fn a_range_that_is_to_be_read_is_left_alone() {
    let (memory, metrics) = reported(&[Buffer { writable: false, ..range(AT, 4096) }]);
    assert_eq!(byte(&memory, AT), 7);
    assert_eq!(metrics, [("reports", 1), ("reported_bytes", 0), ("errors", 0)]);
}

#[test]
fn a_chain_gets_no_more_than_its_portion() {
    let chain: Vec<_> = (0..40).map(|index| range(AT + index * 4096, 4096)).collect();
    let (memory, metrics) = reported(&chain);
    assert_eq!(metrics[1], ("reported_bytes", 32 * 4096));
    assert_eq!((byte(&memory, AT + 31 * 4096), byte(&memory, AT + 32 * 4096)), (0, 7));
}

#[test]
fn only_whole_pages_of_a_range_go_back() {
    let (memory, _) = reported(&[range(AT + 1, 4096), range(AT + 4096, 1)]);
    assert_eq!([0, 4095, 4096].map(|at| byte(&memory, AT + at)), [7, 7, 7]);
}

#[test]
fn the_device_asks_for_nothing_and_serves_reports_on_the_loop() {
    let event_loop = EventLoop::spawn().unwrap();
    let memory = Memory::anonymous(SIZE as usize).unwrap();
    memory.write_obj(7_u8, GuestAddress(AT)).unwrap();
    let mut rings = [0x1_0000, 0x2_0000, 0x3_0000].map(|at| Ring::new(&memory, at, 16));
    // Pages that nobody asked for, and a report.
    rings[0].offer(&[Buffer { writable: false, ..range(0x8000, 64) }]);
    rings[REPORTS].offer(&[range(AT, 4096)]);
    let interrupt = Arc::new(Interrupt::new().unwrap());
    let mut balloon = Balloon::new(event_loop.handle());
    let mut config = [0xff; 12];
    balloon.read_config(0, &mut config);
    assert_eq!(config[..8], [0; 8]);
    let queues = (0..).zip(&rings).map(|(index, ring)| ring.activate_as(index)).collect();
    let activation =
        Activation { memory: memory.clone(), queues, interrupt: Arc::clone(&interrupt), features: REPORTING };
    balloon.activate(activation).unwrap();
    assert_eq!((rings[0].used(), rings[1].used(), rings[REPORTS].used()), (Some((0, 0)), None, Some((0, 0))));
    assert_eq!(byte(&memory, AT), 0);
    assert!(balloon.metrics().contains(&("reported_bytes", 4096)));
    balloon.reset();
    balloon.reset();
    assert_eq!(Arc::strong_count(&interrupt), 1, "the worker is gone");
}
