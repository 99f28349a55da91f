use std::os::unix::net::UnixDatagram;

use virtio_bindings::virtio_net::{VIRTIO_NET_F_CSUM, VIRTIO_NET_F_HOST_TSO4, VIRTIO_NET_F_MRG_RXBUF};
use vm_memory::{Bytes, GuestAddress};

use super::*;
use crate::{
    devices::testing::{Buffer, Ring},
    event_loop::{EventLoop, SubscriberId},
    memory::HUGE_PAGE,
};

const AT: u64 = 0x10_0000;
const HEADER: usize = 12;
/// Checksums and segmentation of TCP over IPv4 left to the host, and merged buffers.
const FEATURES: u64 = 1 << VIRTIO_NET_F_MRG_RXBUF | 1 << VIRTIO_NET_F_CSUM | 1 << VIRTIO_NET_F_HOST_TSO4;

/// A driver on one side, and the other end of the "tap" on the other.
struct Guest {
    memory: Memory,
    receive: Ring,
    transmit: Ring,
    interrupt: Arc<Interrupt>,
    metrics: Arc<NetMetrics>,
    link: Arc<AtomicBool>,
    wire: UnixDatagram,
    kicks: [Arc<vmm_sys_util::eventfd::EventFd>; 2],
    _event_loop: EventLoop,
    handle: Handle,
    worker: Option<SubscriberId>,
}

/// Is ready in each turn of the loop. What was ready before it came has been served after the second.
#[derive(Debug)]
struct Turns {
    ready: vmm_sys_util::eventfd::EventFd,
    left: u32,
    done: std::sync::mpsc::SyncSender<()>,
}

impl Subscriber for Turns {
    fn start(&mut self, registrar: &mut Registrar<'_>) -> io::Result<()> {
        registrar.add(borrow(&self.ready), Token(0), Events::IN)
    }

    fn ready(&mut self, _: Token, _: Events, registrar: &mut Registrar<'_>) {
        self.left -= 1;
        if self.left == 0 {
            registrar.remove(borrow(&self.ready)).unwrap();
            self.done.send(()).unwrap();
        }
    }
}

impl Guest {
    fn new(features: u64) -> Self {
        Self::with(features, |_, _| ())
    }

    /// `prepare` offers what is there before the device starts.
    fn with(features: u64, prepare: impl FnOnce(&mut Ring, &mut Ring)) -> Self {
        let event_loop = EventLoop::spawn().unwrap();
        let memory = Memory::anonymous(2 * HUGE_PAGE).unwrap();
        let mut receive = Ring::new(&memory, 0x1000, 256);
        let mut transmit = Ring::new(&memory, 0x8000, 256);
        prepare(&mut receive, &mut transmit);
        let (wire, tap) = UnixDatagram::pair().unwrap();
        wire.set_read_timeout(Some(std::time::Duration::from_secs(10))).unwrap();
        tap.set_nonblocking(true).unwrap();
        let tap = Arc::new(Tap::over(tap.into()));
        let interrupt = Arc::new(Interrupt::new().unwrap());
        let (link, metrics) = (Arc::new(AtomicBool::new(true)), Arc::<NetMetrics>::default());
        let queues = [receive.activate_with_kick(0), transmit.activate_with_kick(1)];
        let kicks = [Arc::clone(&queues[0].1), Arc::clone(&queues[1].1)];
        let queues = queues.into_iter().map(|(queue, _)| queue).collect();
        let activation =
            Activation { memory: memory.clone(), queues, interrupt: Arc::clone(&interrupt), features };
        let worker = Worker::new(activation, Offloads::of(features), &tap, &link, &metrics).unwrap();
        let handle = event_loop.handle();
        let worker = Some(handle.add(Box::new(worker)).unwrap());
        Self {
            memory,
            receive,
            transmit,
            interrupt,
            metrics,
            link,
            wire,
            kicks,
            _event_loop: event_loop,
            handle,
            worker,
        }
    }

    /// Waits until the device has looked at all that came before.
    fn settle(&mut self) {
        let (done, turned) = std::sync::mpsc::sync_channel(1);
        let ready = vmm_sys_util::eventfd::EventFd::new(0).unwrap();
        ready.write(1).unwrap();
        let turns = self.handle.add(Box::new(Turns { ready, left: 2, done })).unwrap();
        turned.recv_timeout(std::time::Duration::from_secs(10)).unwrap();
        self.handle.remove(turns).unwrap();
    }

    fn kick(&mut self, queue: usize) {
        self.kicks[queue].write(1).unwrap();
        self.settle();
    }

    fn counter(&self, name: &str) -> u64 {
        self.metrics.values().into_iter().find(|(counter, _)| *counter == name).unwrap().1
    }

    /// Sends one frame made of a header and a body, in one buffer.
    fn send(&mut self, header: [u8; HEADER], body: &[u8]) {
        self.memory.write_slice(&header, GuestAddress(AT)).unwrap();
        self.memory.write_slice(body, GuestAddress(AT + HEADER as u64)).unwrap();
        let len = (HEADER + body.len()) as u32;
        self.transmit.offer(&[Buffer { address: AT, len, writable: false }]);
        self.kick(1);
    }

    fn arrived(&self) -> Vec<u8> {
        let mut frame = vec![0; 70_000];
        let len = self.wire.recv(&mut frame).unwrap();
        frame.truncate(len);
        frame
    }

    fn nothing_arrived(&self) -> bool {
        self.wire.set_nonblocking(true).unwrap();
        let nothing = self.wire.recv(&mut [0; 16]).is_err();
        self.wire.set_nonblocking(false).unwrap();
        nothing
    }

    fn bytes(&self, address: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.memory.read_slice(&mut bytes, GuestAddress(address)).unwrap();
        bytes
    }
}

/// `count` receive buffers of `len` bytes, one after the other from `AT`.
fn give(ring: &mut Ring, count: u64, len: u32) {
    for index in 0..count {
        ring.offer(&[Buffer { address: AT + index * u64::from(len), len, writable: true }]);
    }
}

fn body(len: usize) -> Vec<u8> {
    (0..len).map(|index| (index % 251) as u8).collect()
}

#[test]
fn a_frame_of_the_guest_reaches_the_tap_with_its_header() {
    let mut guest = Guest::new(FEATURES);
    let mut header = [0; HEADER];
    header[0] = 1;
    header[1] = 1;
    guest.send(header, &body(1514));
    assert_eq!(guest.arrived(), [&header[..], &body(1514)].concat());
    assert_eq!(guest.transmit.used(), Some((0, 0)));
    assert_eq!((guest.counter("tx_frames"), guest.counter("tx_bytes")), (1, 1514));
}

#[test]
fn a_frame_in_many_parts_is_one_frame_wherever_its_header_is_cut() {
    for cut in [1, 11, 12, 13, 40] {
        let mut guest = Guest::new(FEATURES);
        let all = [&[0; HEADER][..], &body(100)].concat();
        guest.memory.write_slice(&all[..cut], GuestAddress(AT)).unwrap();
        guest.memory.write_slice(&all[cut..], GuestAddress(AT + 0x1000)).unwrap();
        let rest = (all.len() - cut) as u32;
        guest.transmit.offer(&[
            Buffer { address: AT, len: cut as u32, writable: false },
            Buffer { address: AT + 0x1000, len: rest, writable: false },
        ]);
        guest.kick(1);
        assert_eq!(guest.arrived(), all, "cut at {cut}");
    }
}

#[test]
fn what_was_not_agreed_on_does_not_leave_the_guest() {
    let mut guest = Guest::new(FEATURES);
    // Unknown flags, the device's own flags, segmentation of IPv6, of UDP, with ECN, of an unknown kind.
    for (flags, segmentation) in [(2, 0), (4, 0), (0xff, 0), (1, 4), (1, 5), (1, 0x81), (1, 77)] {
        let mut header = [0; HEADER];
        header[0] = flags;
        header[1] = segmentation;
        guest.send(header, &body(100));
    }
    assert!(guest.nothing_arrived());
    assert_eq!(guest.counter("malformed"), 7);
    let mut plain = Guest::new(1 << VIRTIO_NET_F_MRG_RXBUF);
    let mut header = [0; HEADER];
    header[0] = 1;
    plain.send(header, &body(100));
    assert!(plain.nothing_arrived());
    assert_eq!(plain.counter("malformed"), 1);
}

#[test]
fn transmit_chains_that_are_wrong_are_counted_returned_and_followed_by_the_next() {
    let mut guest = Guest::new(FEATURES);
    let read = |address, len| Buffer { address, len, writable: false };
    let end = 2 * HUGE_PAGE as u64;
    let many = vec![read(AT, 20); 100];
    let wrong: [&[Buffer]; 7] = [
        // Nothing, a header alone or less, memory that is not there, too much of it, in too many parts.
        &[read(AT, 0)],
        &[read(AT, 5)],
        &[read(AT, 12)],
        &[read(end, 100)],
        &[read(end - 50, 100)],
        &[read(AT, 1 << 20)],
        &many,
    ];
    for (index, chain) in wrong.iter().enumerate() {
        guest.transmit.offer(chain);
        guest.kick(1);
        assert!(guest.transmit.used().is_some(), "chain {index}");
        assert_eq!(guest.counter("malformed"), index as u64 + 1);
    }
    // What the device may write is not part of a frame.
    guest.transmit.offer(&[Buffer { address: AT, len: 100, writable: true }]);
    guest.kick(1);
    assert_eq!(guest.counter("malformed"), wrong.len() as u64 + 1);
    assert!(guest.nothing_arrived());
    guest.send([0; HEADER], &body(60));
    assert_eq!(guest.arrived().len(), HEADER + 60);
    assert!(!guest.interrupt.failed());
}

#[test]
fn a_frame_of_the_host_lands_in_the_first_buffer() {
    let mut guest = Guest::with(FEATURES, |receive, _| give(receive, 64, 2048));
    let frame = [&[0; HEADER][..], &body(1514)].concat();
    guest.wire.send(&frame).unwrap();
    guest.settle();
    assert_eq!(guest.receive.used(), Some((0, HEADER as u32 + 1514)));
    assert_eq!(guest.receive.used(), None);
    let mut header = [0; HEADER];
    header[10] = 1;
    assert_eq!(guest.bytes(AT, frame.len()), [&header[..], &body(1514)].concat());
    assert_eq!(guest.interrupt.raised(), 1);
}

#[test]
fn a_large_frame_is_merged_from_several_buffers_that_come_at_once() {
    let mut guest = Guest::with(FEATURES, |receive, _| give(receive, 64, 2048));
    let frame = [&[0; HEADER][..], &body(60_000)].concat();
    guest.wire.send(&frame).unwrap();
    guest.settle();
    let count = frame.len().div_ceil(2048);
    for index in 0..count {
        let len = if index + 1 == count { frame.len() % 2048 } else { 2048 };
        assert_eq!(guest.receive.used(), Some((index as u32, len as u32)));
    }
    assert_eq!(guest.receive.used(), None);
    assert_eq!(guest.bytes(AT + 10, 2), (count as u16).to_le_bytes());
    assert_eq!(guest.bytes(AT + HEADER as u64, 60_000), body(60_000));
    assert_eq!(guest.interrupt.raised(), 1);
}

#[test]
fn a_header_may_be_cut_by_the_buffers_of_a_chain() {
    let mut guest = Guest::with(FEATURES, |receive, _| {
        let part = |offset: u64, len| Buffer { address: AT + offset, len, writable: true };
        receive.offer(&[part(0, 5), part(0x100, 30), part(0x1000, 4096)]);
        for _ in 0..40 {
            receive.offer(&[part(0x10_000, 2048)]);
        }
    });
    guest.wire.send(&[&[0; HEADER][..], &body(100)].concat()).unwrap();
    guest.settle();
    assert_eq!(guest.receive.used(), Some((0, 112)));
    assert_eq!(guest.bytes(AT + 0x105, 2), [1, 0]);
    assert_eq!(guest.bytes(AT + 0x107, 23), body(23));
    assert_eq!(guest.bytes(AT + 0x1000, 77), body(100)[23..]);
}

#[test]
fn without_buffers_frames_wait_in_the_tap_and_come_in_order_when_there_are_some() {
    let mut guest = Guest::with(FEATURES, |receive, _| give(receive, 8, 2048));
    for number in 0..5u8 {
        guest.wire.send(&[&[0; HEADER][..], &[number; 60]].concat()).unwrap();
    }
    guest.settle();
    assert_eq!(guest.receive.used(), None);
    assert_eq!(guest.counter("rx_frames"), 0);
    // A driver that only kicks gets nothing, and costs a look each.
    guest.kick(0);
    assert_eq!(guest.counter("rx_frames"), 0);
    give(&mut guest.receive, 40, 2048);
    guest.kick(0);
    for number in 0..5u32 {
        let (head, len) = guest.receive.used().unwrap();
        assert_eq!((head, len), (number, 72));
    }
    assert_eq!(guest.counter("rx_frames"), 5);
}

#[test]
fn receive_chains_that_are_wrong_are_returned_empty() {
    let end = 2 * HUGE_PAGE as u64;
    let mut guest = Guest::with(FEATURES, |receive, _| {
        let write = |address, len| Buffer { address, len, writable: true };
        receive.offer(&[write(AT, 11)]);
        receive.offer(&[write(end - 10, 2048)]);
        receive.offer(&[write(u64::MAX - 100, 2048)]);
        receive.offer(&[Buffer { address: AT, len: 2048, writable: false }]);
        receive.offer(&[write(AT, 100); 4]);
        give(receive, 40, 2048);
    });
    for _ in 0..5 {
        assert_eq!(guest.receive.used().unwrap().1, 0);
    }
    assert_eq!(guest.counter("malformed"), 5);
    guest.wire.send(&[0; HEADER + 60]).unwrap();
    guest.settle();
    assert_eq!(guest.receive.used().unwrap().1, HEADER as u32 + 60);
    assert!(!guest.interrupt.failed());
}

#[test]
fn a_ring_full_of_buffers_too_small_for_a_frame_starves_its_guest_alone() {
    let mut guest = Guest::with(FEATURES, |receive, _| give(receive, 256, 12));
    guest.wire.send(&[0; HEADER + 60]).unwrap();
    guest.settle();
    let starved = guest.counter("rx_starved");
    guest.settle();
    assert_eq!(guest.counter("rx_starved"), starved, "the device looks again and again");
    assert_eq!(guest.receive.used(), None);
    guest.send([0; HEADER], &body(60));
    assert_eq!(guest.arrived().len(), HEADER + 60);
}

#[test]
fn an_available_index_out_of_range_asks_for_reset_and_the_loop_lives_on() {
    let mut guest = Guest::new(FEATURES);
    guest.receive.put(guest.receive.setup.avail + 2, 5000_u16);
    guest.kick(0);
    assert!(guest.interrupt.failed());
    guest.transmit.put(guest.transmit.setup.avail + 2, 5000_u16);
    guest.kick(1);
    guest.settle();
}

#[test]
fn a_frame_that_the_host_refuses_is_dropped_and_counted() {
    let mut guest = Guest::with(FEATURES, |receive, _| give(receive, 64, 2048));
    // Not closed: a child that another test starts has a copy of the socket for a moment.
    guest.wire.shutdown(std::net::Shutdown::Both).unwrap();
    guest.settle();
    // A datagram socket whose peer takes nothing has no error to read; a write has.
    guest.send([0; HEADER], &body(60));
    assert_eq!(guest.counter("tx_dropped"), 1);
    assert!(guest.link.load(Ordering::Acquire));
}

#[test]
fn a_driver_that_does_not_merge_buffers_is_refused() {
    let memory = Memory::anonymous(HUGE_PAGE).unwrap();
    let queues = vec![Ring::new(&memory, 0x1000, 8).activate(), Ring::new(&memory, 0x8000, 8).activate()];
    let interrupt = Arc::new(Interrupt::new().unwrap());
    let activation = Activation { memory, queues, interrupt, features: 0 };
    let (wire, _) = UnixDatagram::pair().unwrap();
    let tap = Arc::new(Tap::over(wire.into()));
    let worker = Worker::new(activation, Offloads::of(0), &tap, &Arc::default(), &Arc::default());
    assert!(matches!(worker, Err(NetError::NotMerging)));
}

#[test]
fn the_device_stops_at_reset() {
    let mut guest = Guest::new(FEATURES);
    guest.handle.remove(guest.worker.take().unwrap()).unwrap();
    assert_eq!(Arc::strong_count(&guest.interrupt), 1, "the worker is gone");
}

#[test]
fn an_address_or_mtu_that_no_station_has_is_refused() {
    let event_loop = EventLoop::spawn().unwrap();
    let fd = || UnixDatagram::pair().unwrap().0.into();
    let refused = |mac, mtu| Net::new(fd(), None, mac, mtu, event_loop.handle()).unwrap_err().to_string();
    assert_eq!(refused([2, 0, 0, 0, 0, 1], 67), "MTU 67 is below 68");
    assert!(refused([0; 6], 1500).starts_with("MAC address"));
    assert!(refused([0xff; 6], 1500).starts_with("MAC address"));
    assert_eq!(refused([2, 0, 0, 0, 0, 1], 1500), "set the header size of the tap");
}
