//! A guest that lies: the device answers with resets, stays within its bounds, and serves honest streams on.

use std::{os::unix::net::UnixStream, sync::Arc};

use vm_memory::{Bytes, GuestAddress};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::guest::{Cut, Guest, Peer, Random, WRITE, connect, read, rings};
use crate::{
    devices::{
        device::{Activation, VirtioDevice},
        interrupt::Interrupt,
        vsock::{
            Vsock,
            packet::{HEADER, Header, MAX_PAYLOAD, Op, STREAM},
        },
    },
    event_loop::{EventLoop, borrow},
    memory::Memory,
};

const WINDOW: u32 = 256 << 10;

#[test]
fn a_length_beyond_the_chain_or_the_limit_resets_the_stream() {
    for (len, payload) in [(10, 9), (1, 0), (MAX_PAYLOAD + 1, 8), (u32::MAX, 8)] {
        let mut guest = Guest::new();
        let (mut client, mut peer) = connect(&mut guest, WINDOW);
        guest.send(&Header { len, ..peer.header(Op::Data) }, &vec![1; payload]);
        peer.sync(&mut guest);
        assert!(peer.reset, "len {len} of {payload}");
        assert!(super::at_end(&mut client));
        assert_eq!(guest.metrics.violations.get(), 1);
    }
}

#[test]
fn data_beyond_the_credit_resets_the_stream_and_what_fitted_is_delivered() {
    let mut guest = Guest::new();
    let (mut client, mut peer) = connect(&mut guest, WINDOW);
    let mut sent = 0;
    while !peer.reset {
        guest.send(&Header { len: 50_000, ..peer.header(Op::Data) }, &vec![5; 50_000]);
        sent += 50_000;
        peer.sync(&mut guest);
        assert!(sent < 2 << 20, "nothing stops the guest");
    }
    let mut received = read(&mut client);
    while !super::at_end_after_step(&mut guest, &mut client, &mut received) {}
    assert_eq!(received.len(), sent - 50_000);
}

#[test]
fn packets_that_fit_no_state_reset_their_stream() {
    let ops = [Op::Request as u16, Op::Response as u16, 0, 8, u16::MAX];
    for op in ops {
        let mut guest = Guest::new();
        let (_client, mut peer) = connect(&mut guest, WINDOW);
        guest.send(&Header { op, ..peer.header(Op::Data) }, &[]);
        peer.sync(&mut guest);
        assert!(peer.reset, "op {op}");
    }
    for op in [Op::Data, Op::Shutdown, Op::CreditUpdate, Op::CreditRequest, Op::Request] {
        let mut guest = Guest::new();
        let mut client = guest.client(1);
        let request = guest.drain().remove(0).header;
        let mut peer = Peer::new(request.src_port, 1, 0);
        guest.send(&peer.header(op), &[]);
        peer.sync(&mut guest);
        assert!(peer.reset, "{op:?} instead of an answer");
        assert!(super::at_end(&mut client));
    }
}

#[test]
fn data_after_the_guests_own_shutdown_is_refused() {
    let mut guest = Guest::new();
    let (mut client, mut peer) = connect(&mut guest, WINDOW);
    peer.shutdown(&mut guest, super::SHUTDOWN_SEND);
    guest.send(&Header { len: 1, ..peer.header(Op::Data) }, &[1]);
    peer.sync(&mut guest);
    assert!(peer.reset);
    assert!(super::at_end(&mut client));
}

#[test]
fn wrong_addresses_are_dropped_and_strays_answered() {
    let mut guest = Guest::new();
    let peer = Peer::new(5, 6, WINDOW);
    let header = peer.header(Op::Data);
    for wrong in
        [Header { src_cid: 2, ..header }, Header { dst_cid: 3, ..header }, Header { dst_cid: 0, ..header }]
    {
        guest.send(&wrong, &[]);
    }
    assert!(guest.drain().is_empty());
    assert_eq!(guest.metrics.dropped.get(), 3);

    guest.send(&header, &[]);
    let answer = guest.drain().remove(0).header;
    assert_eq!((answer.op, answer.src_port, answer.dst_port), (Op::Reset as u16, 5, 6));
    guest.send(&peer.header(Op::Reset), &[]);
    assert!(guest.drain().is_empty(), "a reset is never answered");
}

#[test]
fn a_flood_of_strays_without_buffers_stays_bounded() {
    let mut guest = Guest::new();
    for guest_port in 0..5000 {
        guest.send(&Peer::new(9, guest_port, 0).header(Op::Data), &[]);
    }
    assert!(guest.metrics.dropped.get() > 4000);
    let (mut client, mut peer) = {
        guest.drain();
        connect(&mut guest, WINDOW)
    };
    peer.write(&mut guest, b"fine");
    assert_eq!(read(&mut client), b"fine");
}

#[test]
fn chains_without_room_or_outside_of_memory_come_back_empty() {
    let mut guest = Guest::with(Cut { rx: vec![HEADER as u32], tx: usize::MAX }, []);
    let _client = guest.client(1);
    guest.step();
    assert!(guest.rx.take_used(&guest.memory).iter().all(|(_, len)| *len == 0));
    assert_eq!(guest.metrics.bad_chains.get(), 64);

    let mut guest = Guest::new();
    let memory = guest.memory.clone();
    let outside = memory.low() as u64;
    let cases = [
        (outside, 44, 0),
        (outside - 10, 44, 0),
        (u64::MAX - 3, 44, 0),
        (0x2000, u32::MAX, 0),
        (0x2000, 0, 0),
        (0x2000, 44, WRITE),
    ];
    for (i, (address, len, flags)) in cases.into_iter().enumerate() {
        guest.tx.descriptor(&memory, i as u16, address, len, flags, 0);
        guest.tx.publish(&memory, i as u16);
        guest.step();
        assert_eq!(guest.tx.take_used(&memory), [(i as u16, 0)]);
        assert_eq!(guest.metrics.bad_chains.get(), i as u64 + 1);
    }
    // A chain that runs in a circle ends at the ring's size.
    guest.tx.descriptor(&memory, 10, 0x2000, 1, 1, 10);
    guest.tx.publish(&memory, 10);
    guest.step();
    assert_eq!(guest.tx.take_used(&memory).len(), 1);
    assert!(!guest.worker.interrupt.failed());
}

#[test]
fn a_broken_ring_stops_the_device_until_it_is_reset() {
    let mut guest = Guest::new();
    let memory = guest.memory.clone();
    for _ in 0..3000 {
        guest.tx.publish(&memory, 0);
    }
    guest.step();
    assert!(guest.worker.interrupt.failed());
    guest.step();
}

/// Every packet is a mix of what is right and what is random, on streams in every phase.
#[test]
fn random_packets_never_panic_and_never_grow_the_device() {
    for seed in 1..=40 {
        let mut random = Random(0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(seed));
        let (_host, port) = UnixStream::pair().unwrap();
        let mut guest = Guest::with(Cut::default(), [(1024, port.into())]);
        let mut clients: Vec<UnixStream> = Vec::new();
        let mut ports = vec![1024];
        for _ in 0..400 {
            match random.below(12) {
                0 if clients.len() < 20 => clients.push(guest.client(random.below(4) as u32)),
                1 if !clients.is_empty() => {
                    let client = clients.swap_remove(random.below(clients.len() as u64) as usize);
                    if random.below(2) == 0 {
                        let _ = client.shutdown(std::net::Shutdown::Write);
                        clients.push(client);
                    }
                }
                2 => {
                    for client in &mut clients {
                        let _ = std::io::Write::write(client, &[1; 5000]);
                    }
                }
                3 => {
                    for client in &mut clients {
                        let _ = std::io::Read::read(client, &mut [0; 9000]);
                    }
                }
                _ => {}
            }
            let header = random_header(&mut random, &ports);
            let payload = vec![3; random.below(70_000) as usize];
            guest.send(&header, &payload[..payload.len().min(66 << 10)]);
            for packet in guest.packets() {
                ports.push(packet.header.src_port);
            }
            assert!(guest.worker.muxer.held() <= 21 * WINDOW as usize);
        }
        drop(clients);
        guest.drain();
        assert!(!guest.worker.interrupt.failed());
    }
}

fn random_header(random: &mut Random, ports: &[u32]) -> Header {
    let mut odd = |honest: u32| if random.below(8) == 0 { random.next() as u32 } else { honest };
    let (kind, flags) = (odd(STREAM.into()) as u16, odd(0));
    let (src_cid, dst_cid, buf_alloc) = (odd(3).into(), odd(2).into(), odd(WINDOW));
    Header {
        src_cid,
        dst_cid,
        src_port: random.below(5) as u32,
        dst_port: ports[random.below(ports.len() as u64) as usize],
        len: random.below(70_000) as u32,
        kind,
        op: random.below(9) as u16,
        flags: flags | random.below(16) as u32 & 3,
        buf_alloc,
        fwd_cnt: random.below(100_000) as u32,
    }
}

/// The same through the device and the real loop: kicks in, interrupts out, and nothing left after a reset.
#[test]
fn the_device_serves_its_queues_on_the_loop_and_lets_go_of_all_at_reset() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("vsock");
    let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let (mut host, port) = UnixStream::pair().unwrap();
    let event_loop = EventLoop::spawn().unwrap();
    let mut device = Vsock::new(listener.into(), [(1024, port.into())], event_loop.handle()).unwrap();
    let mut cid = [0; 8];
    device.read_config(0, &mut cid);
    assert_eq!(u64::from_le_bytes(cid), 3);

    let memory = Memory::anonymous(32 << 20).unwrap();
    let [mut rx, mut tx, event] = rings();
    let kicks: Vec<_> = (0..3).map(|_| Arc::new(EventFd::new(EFD_NONBLOCK).unwrap())).collect();
    let queues = [&rx, &tx, &event]
        .into_iter()
        .enumerate()
        .map(|(i, ring)| ring.setup().activate(i, 256, false, Arc::clone(&kicks[i]), &*memory).unwrap())
        .collect();
    let interrupt = Arc::new(Interrupt::new().unwrap());
    let activation =
        Activation { memory: memory.clone(), queues, interrupt: Arc::clone(&interrupt), features: 0 };
    device.activate(activation).unwrap();

    let rx_buffer = rx.offer(&memory, &[(4000, WRITE)])[0];
    let header = Peer::new(1024, 77, WINDOW).header(Op::Request);
    let tx_buffer = tx.offer(&memory, &[(44, 0)])[0];
    memory.write_slice(&header.bytes(), GuestAddress(tx_buffer)).unwrap();
    kicks[1].write(1).unwrap();

    // Both rings are served by the first interrupts, which come within the deadline or the test fails.
    let (mut taken, mut given) = (0, Vec::new());
    while taken == 0 || given.is_empty() {
        let fd = borrow(interrupt.irqfd());
        let mut poll = [rustix::event::PollFd::new(&fd, rustix::event::PollFlags::IN)];
        let timeout = rustix::event::Timespec { tv_sec: 10, tv_nsec: 0 };
        assert_eq!(rustix::event::poll(&mut poll, Some(&timeout)).unwrap(), 1, "no interrupt");
        interrupt.irqfd().read().unwrap();
        taken += tx.take_used(&memory).len();
        given.extend(rx.take_used(&memory));
    }
    assert_eq!(given, [(0, 44)]);
    let mut answer = [0; HEADER];
    memory.read_slice(&mut answer, GuestAddress(rx_buffer)).unwrap();
    assert_eq!(Header::parse(&answer).op, Op::Response as u16);
    assert!(device.metrics().contains(&("accepted", 1)));

    device.reset();
    host.set_nonblocking(true).unwrap();
    assert!(super::at_end(&mut host), "the stream is closed with the device");
    device.reset();
}
