//! A guest without KVM: a driver that lays chains in real guest memory, and a worker served on the same thread.
//!
//!   test ──`send`──▶ tx ring ──▶ Worker ──▶ unix sockets (the test holds the other ends)
//!   test ◀─`packets`─ rx ring ◀─ Worker ◀─ unix sockets
//!
//! `step` is one wake-up of the device loop; nothing here waits or sleeps.

use std::{
    collections::VecDeque,
    io::{Read, Write},
    os::{
        fd::OwnedFd,
        unix::net::{UnixListener, UnixStream},
    },
};

use vm_memory::{Bytes, GuestAddress};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::super::{muxer::Ports, packet::STREAM, *};
use crate::{
    devices::{interrupt::Interrupt, queue::QueueSetup},
    memory::Memory,
};

pub(super) const NEXT: u16 = 1;
pub(super) const WRITE: u16 = 2;
const RING: u16 = 64;
/// The buffer of descriptor d of a ring begins at d of these behind the rings; large enough for a whole packet.
const BUFFER: u64 = 68 << 10;

/// The driver's side of one ring, whose descriptors are used round robin.
#[derive(Debug)]
pub(super) struct Ring {
    base: u64,
    next: u16,
    available: u16,
    used: u16,
    free: u16,
}

impl Ring {
    fn new(base: u64) -> Self {
        Self { base, next: 0, available: 0, used: 0, free: RING }
    }

    pub(super) fn setup(&self) -> QueueSetup {
        QueueSetup {
            size: RING.into(),
            ready: true,
            descriptors: self.base,
            avail: self.base + 0x1000,
            used: self.base + 0x2000,
        }
    }

    fn buffer(&self, descriptor: u16) -> u64 {
        self.base + 0x3000 + u64::from(descriptor) * BUFFER
    }

    /// Offers one chain of (length, flags) descriptors; returns the addresses of its buffers.
    pub(super) fn offer(&mut self, memory: &Memory, parts: &[(u32, u16)]) -> Vec<u64> {
        assert!(parts.len() <= usize::from(self.free), "ring full");
        let head = self.next;
        let mut addresses = Vec::new();
        for (i, (len, flags)) in parts.iter().enumerate() {
            let address = self.buffer(self.next);
            let following = (self.next + 1) % RING;
            let flags = if i + 1 < parts.len() { flags | NEXT } else { *flags };
            self.descriptor(memory, self.next, address, *len, flags, following);
            addresses.push(address);
            self.next = following;
        }
        self.free -= parts.len() as u16;
        self.publish(memory, head);
        addresses
    }

    pub(super) fn descriptor(&self, memory: &Memory, at: u16, address: u64, len: u32, flags: u16, next: u16) {
        let entry = GuestAddress(self.base + 16 * u64::from(at));
        memory.write_obj(address, entry).unwrap();
        memory.write_obj(len, GuestAddress(entry.0 + 8)).unwrap();
        memory.write_obj(flags, GuestAddress(entry.0 + 12)).unwrap();
        memory.write_obj(next, GuestAddress(entry.0 + 14)).unwrap();
    }

    pub(super) fn publish(&mut self, memory: &Memory, head: u16) {
        let avail = self.base + 0x1000;
        memory.write_obj(head, GuestAddress(avail + 4 + 2 * u64::from(self.available % RING))).unwrap();
        self.available = self.available.wrapping_add(1);
        memory.write_obj(self.available, GuestAddress(avail + 2)).unwrap();
    }

    /// The chains that came back: head and written length.
    pub(super) fn take_used(&mut self, memory: &Memory) -> Vec<(u16, u32)> {
        let used = self.base + 0x2000;
        let index: u16 = memory.read_obj(GuestAddress(used + 2)).unwrap();
        let mut chains = Vec::new();
        while self.used != index {
            let entry = used + 4 + 8 * u64::from(self.used % RING);
            let head: u32 = memory.read_obj(GuestAddress(entry)).unwrap();
            let len: u32 = memory.read_obj(GuestAddress(entry + 4)).unwrap();
            chains.push((head as u16, len));
            self.used = self.used.wrapping_add(1);
        }
        chains
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Packet {
    pub(super) header: packet::Header,
    pub(super) payload: Vec<u8>,
}

/// How the driver cuts its buffers.
#[derive(Debug, Clone)]
pub(super) struct Cut {
    /// Lengths of the descriptors of each rx chain.
    pub(super) rx: Vec<u32>,
    /// Longest descriptor of a tx chain, header included.
    pub(super) tx: usize,
}

impl Default for Cut {
    fn default() -> Self {
        // As Linux does: one buffer of about 4 KiB to receive, header and payload apart to send.
        Self { rx: vec![3776], tx: usize::MAX }
    }
}

pub(super) struct Guest {
    pub(super) memory: Memory,
    pub(super) worker: Worker,
    pub(super) metrics: Arc<VsockMetrics>,
    pub(super) rx: Ring,
    pub(super) tx: Ring,
    cut: Cut,
    rx_chains: VecDeque<(u16, Vec<(u64, u32)>)>,
    path: std::path::PathBuf,
    _directory: tempfile::TempDir,
}

pub(super) fn rings() -> [Ring; 3] {
    [Ring::new(0x1_0000), Ring::new(0x80_0000), Ring::new(0x100_0000)]
}

impl Guest {
    pub(super) fn new() -> Self {
        Self::with(Cut::default(), [])
    }

    pub(super) fn with(cut: Cut, ports: impl IntoIterator<Item = (u32, OwnedFd)>) -> Self {
        let memory = Memory::anonymous(32 << 20).unwrap();
        let [rx, tx, event] = rings();
        let queue = |ring: &Ring, index| {
            let kick = Arc::new(EventFd::new(EFD_NONBLOCK).unwrap());
            ring.setup().activate(index, 256, false, kick, &*memory).unwrap()
        };
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("vsock");
        let listener = UnixListener::bind(&path).unwrap();
        listener.set_nonblocking(true).unwrap();
        let ports: Ports = Arc::new(Mutex::new(ports.into_iter().collect()));
        let metrics = Arc::new(VsockMetrics::default());
        let muxer = Muxer::new(Arc::new(listener.into()), ports, Arc::clone(&metrics)).unwrap();
        let worker = Worker {
            rx: queue(&rx, 0),
            tx: queue(&tx, 1),
            event: queue(&event, 2),
            interrupt: Arc::new(Interrupt::new().unwrap()),
            memory: memory.clone(),
            muxer,
            metrics: Arc::clone(&metrics),
        };
        let mut guest = Self {
            memory,
            worker,
            metrics,
            rx,
            tx,
            cut,
            rx_chains: VecDeque::new(),
            path,
            _directory: directory,
        };
        guest.offer_rx();
        guest
    }

    fn offer_rx(&mut self) {
        let parts: Vec<_> = self.cut.rx.iter().map(|len| (*len, WRITE)).collect();
        while usize::from(self.rx.free) >= parts.len() {
            let head = self.rx.next;
            let addresses = self.rx.offer(&self.memory, &parts);
            let buffers = addresses.into_iter().zip(self.cut.rx.iter().copied()).collect();
            self.rx_chains.push_back((head, buffers));
        }
    }

    /// One wake-up of the device loop.
    pub(super) fn step(&mut self) {
        self.worker.muxer.poll_host();
        self.worker.work();
    }

    /// A host client that asks for a port.
    pub(super) fn client(&mut self, port: u32) -> UnixStream {
        let mut client = UnixStream::connect(&self.path).unwrap();
        client.set_nonblocking(true).unwrap();
        client.write_all(format!("CONNECT {port}\n").as_bytes()).unwrap();
        client
    }

    pub(super) fn raw_client(&self) -> UnixStream {
        let client = UnixStream::connect(&self.path).unwrap();
        client.set_nonblocking(true).unwrap();
        client
    }

    pub(super) fn send(&mut self, header: &packet::Header, payload: &[u8]) {
        let bytes = [&header.bytes()[..], payload].concat();
        let first = self.cut.tx.min(packet::HEADER);
        let (head, rest) = bytes.split_at(first);
        let mut parts = vec![head];
        parts.extend(rest.chunks(self.cut.tx));
        let lengths: Vec<_> = parts.iter().map(|part| (part.len() as u32, 0)).collect();
        let addresses = self.tx.offer(&self.memory, &lengths);
        for (address, part) in addresses.into_iter().zip(parts) {
            self.memory.write_slice(part, GuestAddress(address)).unwrap();
        }
        self.step();
        let used = self.tx.take_used(&self.memory).len();
        assert_eq!(used, 1, "every packet is taken at once");
        self.tx.free += lengths.len() as u16;
    }

    /// What has arrived; its buffers go back to the device.
    pub(super) fn packets(&mut self) -> Vec<Packet> {
        let mut packets = Vec::new();
        for (head, len) in self.rx.take_used(&self.memory) {
            let (expected, buffers) = self.rx_chains.pop_front().unwrap();
            assert_eq!(head, expected, "buffers are used in order");
            self.rx.free += buffers.len() as u16;
            let mut bytes = Vec::new();
            for (address, size) in buffers {
                let mut part = vec![0; size as usize];
                self.memory.read_slice(&mut part, GuestAddress(address)).unwrap();
                bytes.extend(part);
            }
            bytes.truncate(len as usize);
            let payload = bytes.split_off(packet::HEADER);
            let header = packet::Header::parse(&bytes.try_into().unwrap());
            assert_eq!(header.len as usize, payload.len());
            assert_eq!((header.src_cid, header.dst_cid), (2, 3));
            packets.push(Packet { header, payload });
        }
        self.offer_rx();
        packets
    }

    /// Steps and collects until nothing comes any more.
    pub(super) fn drain(&mut self) -> Vec<Packet> {
        let mut all = Vec::new();
        loop {
            self.step();
            let packets = self.packets();
            if packets.is_empty() {
                return all;
            }
            all.extend(packets);
        }
    }
}

/// A stream as the guest's kernel keeps it.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) host_port: u32,
    pub(super) guest_port: u32,
    pub(super) window: u32,
    /// Bytes that the guest's application has read: what credit is given for.
    pub(super) read: u32,
    sent: u32,
    host_window: u32,
    host_forwarded: u32,
    pub(super) received: Vec<u8>,
    pub(super) shutdown: u32,
    pub(super) reset: bool,
}

impl Peer {
    pub(super) fn new(host_port: u32, guest_port: u32, window: u32) -> Self {
        Self {
            host_port,
            guest_port,
            window,
            read: 0,
            sent: 0,
            host_window: 0,
            host_forwarded: 0,
            received: Vec::new(),
            shutdown: 0,
            reset: false,
        }
    }

    pub(super) fn header(&self, op: packet::Op) -> packet::Header {
        packet::Header {
            src_cid: 3,
            dst_cid: 2,
            src_port: self.guest_port,
            dst_port: self.host_port,
            len: 0,
            kind: STREAM,
            op: op as u16,
            flags: 0,
            buf_alloc: self.window,
            fwd_cnt: self.read,
        }
    }

    /// Takes those packets that are for this stream.
    pub(super) fn take(&mut self, packets: &[Packet]) {
        for Packet { header, payload } in packets {
            if (header.src_port, header.dst_port) != (self.host_port, self.guest_port) {
                continue;
            }
            self.host_window = header.buf_alloc;
            self.host_forwarded = header.fwd_cnt;
            self.received.extend(payload);
            match packet::Op::parse(header.op) {
                Some(packet::Op::Shutdown) => self.shutdown |= header.flags,
                Some(packet::Op::Reset) => self.reset = true,
                _ => {}
            }
        }
    }

    pub(super) fn credit(&self) -> u32 {
        self.host_window - self.sent.wrapping_sub(self.host_forwarded)
    }

    /// Sends as much of `bytes` as there is credit for, in one packet; returns how much.
    pub(super) fn write(&mut self, guest: &mut Guest, bytes: &[u8]) -> usize {
        let n = bytes.len().min(self.credit() as usize).min(packet::MAX_PAYLOAD as usize);
        if n > 0 {
            let header = packet::Header { len: n as u32, ..self.header(packet::Op::Data) };
            guest.send(&header, &bytes[..n]);
            self.sent = self.sent.wrapping_add(n as u32);
        }
        n
    }

    /// The application reads all that arrived, and the kernel gives the credit back.
    pub(super) fn read_all(&mut self, guest: &mut Guest) {
        self.read = self.received.len() as u32;
        guest.send(&self.header(packet::Op::CreditUpdate), &[]);
    }

    pub(super) fn shutdown(&self, guest: &mut Guest, flags: u32) {
        guest.send(&packet::Header { flags, ..self.header(packet::Op::Shutdown) }, &[]);
    }

    pub(super) fn sync(&mut self, guest: &mut Guest) {
        let packets = guest.drain();
        self.take(&packets);
    }
}

/// A stream that a host client opened and the guest granted; its `OK` is read.
pub(super) fn connect(guest: &mut Guest, window: u32) -> (UnixStream, Peer) {
    let mut client = guest.client(1025);
    let packets = guest.drain();
    let [request] = packets.as_slice() else { panic!("one request, not {packets:?}") };
    assert_eq!(request.header.op, packet::Op::Request as u16);
    assert_eq!(request.header.dst_port, 1025);
    let mut peer = Peer::new(request.header.src_port, 1025, window);
    peer.take(&packets);
    guest.send(&peer.header(packet::Op::Response), &[]);
    assert_eq!(read(&mut client), format!("OK {}\n", peer.host_port).into_bytes());
    (client, peer)
}

/// All that is there to read now.
pub(super) fn read(client: &mut UnixStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    match client.read_to_end(&mut bytes) {
        Ok(_) => {}
        Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock),
    }
    bytes
}

/// True when the end of file is next.
pub(super) fn at_end(client: &mut UnixStream) -> bool {
    matches!(client.read(&mut [0]), Ok(0))
}

/// Writes as much as the socket takes.
pub(super) fn write(client: &mut UnixStream, bytes: &[u8]) -> usize {
    let mut done = 0;
    while done < bytes.len() {
        match client.write(&bytes[done..]) {
            Ok(n) => done += n,
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => break,
            Err(error) => panic!("write: {error}"),
        }
    }
    done
}

/// xorshift64: the same bytes in every run.
#[derive(Debug)]
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    pub(super) fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    pub(super) fn bytes(&mut self, n: usize) -> Vec<u8> {
        (0..n).map(|_| self.next() as u8).collect()
    }
}
