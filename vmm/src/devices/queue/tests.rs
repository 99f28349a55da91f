use vmm_sys_util::eventfd::EFD_NONBLOCK;

use super::*;
use crate::{
    devices::testing::{Buffer, Ring},
    memory::{HUGE_PAGE, Memory},
};

const BUFFER: Buffer = Buffer { address: 0x10_0000, len: 16, writable: true };

fn memory() -> Memory {
    Memory::anonymous(HUGE_PAGE).unwrap()
}

fn refused(change: impl Fn(&mut QueueSetup)) -> QueueError {
    let memory = memory();
    let mut setup = Ring::new(&memory, 0x1000, 8).setup;
    change(&mut setup);
    let kick = Arc::new(EventFd::new(EFD_NONBLOCK).unwrap());
    setup.activate(3, 8, false, kick, &*memory).unwrap_err()
}

#[test]
fn a_queue_that_is_not_ready_or_of_a_wrong_size_is_refused() {
    assert!(matches!(refused(|setup| setup.ready = false), QueueError::NotReady { index: 3 }));
    for size in [0, 3, 16, 0x1_0008, u32::MAX] {
        assert!(matches!(refused(|setup| setup.size = size), QueueError::Size { .. }), "{size}");
    }
}

#[test]
fn a_ring_that_is_misaligned_or_leaves_memory_is_refused() {
    let end = HUGE_PAGE as u64;
    for address in [0, 0x1008, end - 16 * 7, end, u64::MAX - 15] {
        let error = refused(|setup| setup.descriptors = address);
        assert!(matches!(error, QueueError::Address { ring: "descriptor table", .. }), "{address:#x}");
    }
    for address in [0, 0x1001, end - 20, u64::MAX] {
        let error = refused(|setup| setup.avail = address);
        assert!(matches!(error, QueueError::Address { ring: "available ring", .. }), "{address:#x}");
    }
    for address in [0, 0x1002, end - 68, u64::MAX - 3] {
        let error = refused(|setup| setup.used = address);
        assert!(matches!(error, QueueError::Address { ring: "used ring", .. }), "{address:#x}");
    }
}

#[test]
fn rings_may_end_where_memory_ends() {
    let memory = memory();
    let mut ring = Ring::new(&memory, 0x1000, 8);
    ring.setup.used = HUGE_PAGE as u64 - (4 + 8 * 8 + 4);
    ring.activate();
    ring.setup.descriptors = HUGE_PAGE as u64 - 16 * 8;
    ring.activate();
}

#[test]
fn chains_are_served_in_order_and_the_driver_is_told_once() {
    let memory = memory();
    let mut ring = Ring::new(&memory, 0x1000, 8);
    let mut queue = ring.activate();
    let interrupt = Interrupt::new().unwrap();
    let heads = [ring.offer(&[BUFFER]), ring.offer(&[BUFFER, BUFFER])];
    let mut descriptors = Vec::new();
    queue
        .serve(&*memory, &interrupt, |chain| {
            descriptors.push(chain.count());
            5
        })
        .unwrap();
    assert_eq!(descriptors, [1, 2]);
    assert_eq!(ring.used(), Some((heads[0].into(), 5)));
    assert_eq!(ring.used(), Some((heads[1].into(), 5)));
    assert_eq!(ring.used(), None);
    assert_eq!(interrupt.raised(), 1);
    queue.serve(&*memory, &interrupt, |_| unreachable!("nothing was offered")).unwrap();
    assert_eq!(interrupt.raised(), 1);
}

#[test]
fn a_driver_that_wants_no_interrupt_gets_none() {
    let memory = memory();
    let mut ring = Ring::new(&memory, 0x1000, 8);
    let mut queue = ring.activate();
    let interrupt = Interrupt::new().unwrap();
    ring.put(ring.setup.avail, 1_u16);
    ring.offer(&[BUFFER]);
    queue.serve(&*memory, &interrupt, |_| 0).unwrap();
    assert_eq!((interrupt.raised(), ring.used()), (0, Some((0, 0))));
}

#[test]
fn a_driver_that_always_has_more_does_not_keep_the_thread() {
    let memory = memory();
    let mut ring = Ring::new(&memory, 0x1000, 4);
    let mut queue = ring.activate();
    let interrupt = Interrupt::new().unwrap();
    ring.offer(&[BUFFER]);
    let mut served = 0;
    queue
        .serve(&*memory, &interrupt, |_| {
            served += 1;
            ring.offer(&[BUFFER]);
            0
        })
        .unwrap();
    assert_eq!(served, 4);
    assert_eq!(queue.kick().read().unwrap(), 1, "the queue asks for another turn");
}

#[test]
fn an_available_index_beyond_the_ring_is_an_error() {
    let memory = memory();
    let ring = Ring::new(&memory, 0x1000, 4);
    let mut queue = ring.activate();
    ring.put(ring.setup.avail + 2, 5_u16);
    let served = queue.serve(&*memory, &Interrupt::new().unwrap(), |_| 0);
    assert!(matches!(served, Err(QueueError::Ring { .. })));
}

#[test]
fn a_head_beyond_the_ring_is_an_error_and_a_loop_of_descriptors_ends() {
    let memory = memory();
    let mut ring = Ring::new(&memory, 0x1000, 4);
    let mut queue = ring.activate();
    let interrupt = Interrupt::new().unwrap();
    // Descriptor 0 names itself as the next.
    ring.put(ring.setup.descriptors + 12, 1_u16);
    ring.offer_head(0);
    let mut len = 0;
    queue
        .serve(&*memory, &interrupt, |chain| {
            len = chain.count();
            0
        })
        .unwrap();
    assert!(len <= 4, "{len} descriptors");
    ring.offer_head(9);
    assert!(matches!(queue.serve(&*memory, &interrupt, |_| 0), Err(QueueError::Ring { .. })));
}
