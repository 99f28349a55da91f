//! A hostile guest against the vsock muxer: packets with any header, in chains of any shape, while clients of the host connect,
//! write, read and leave.
//!
//! Every packet is taken, and what comes back is a packet for this guest that fits its buffer.

#![no_main]

use std::{
    io::{Read as _, Write as _},
    os::{
        linux::net::SocketAddrExt as _,
        unix::net::{SocketAddr, UnixListener, UnixStream},
    },
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
};

use arbitrary::Arbitrary;
use bulkhead_fuzz::{Buffer, Descriptor, RINGS, Ring};
use bulkhead_protocol::ports;
use bulkhead_vmm::{
    devices::{
        device::{Activation, VirtioDevice as _},
        interrupt::Interrupt,
        vsock::Vsock,
    },
    event_loop::EventLoop,
    memory::Memory,
};
use libfuzzer_sys::fuzz_target;
use vm_memory::{Bytes as _, GuestAddress};

const RX: u64 = 0x1000;
const TX: u64 = RX + RINGS;
const EVENT: u64 = TX + RINGS;
const SIZE: u16 = 32;
/// Where packets lie, and buffers for packets.
const SENT: u64 = 0x2_0000;
const ROOM: u64 = 0x10_0000;
const ROOM_EACH: u64 = 0x1_0000;
const HEADER: usize = 44;
const HOST_CID: u64 = 2;
const MAX_STEPS: usize = 64;

#[derive(Debug, Arbitrary)]
enum Step {
    Packet(Packet),
    /// The guest offers buffers.
    Room {
        count: u8,
        length: u16,
    },
    /// A chain that no driver would make.
    Chain {
        descriptors: Vec<Descriptor>,
        head: u8,
        rx: bool,
    },
    /// A client on the host connects and says to which port.
    Connect {
        port: Port,
    },
    /// Or says anything.
    Say {
        bytes: Vec<u8>,
    },
    Write {
        client: u8,
        length: u16,
    },
    Read {
        client: u8,
    },
    Leave {
        client: u8,
    },
    Reset,
}

#[derive(Debug, Arbitrary)]
struct Packet {
    source: Port,
    destination: Port,
    operation: u8,
    stream: bool,
    flags: u8,
    payload: u16,
    /// What the header says of it, when that is something else.
    length: Option<u32>,
    credit: u32,
    forwarded: u32,
    /// Other ends than the guest and the host.
    cids: Option<(u64, u64)>,
    cut: u8,
}

#[derive(Debug, Clone, Copy, Arbitrary)]
enum Port {
    Agent,
    Number(u8),
    /// One that the host's side has used.
    Seen(u8),
    Any(u32),
}

struct Guest {
    memory: Memory,
    interrupt: Arc<Interrupt>,
    device: Vsock,
    rx: Ring,
    tx: Ring,
    event: Ring,
    offered: u64,
    /// Buffers that the device has.
    outstanding: u16,
    seen: Vec<u32>,
}

fn device_loop() -> &'static EventLoop {
    static LOOP: OnceLock<EventLoop> = OnceLock::new();
    LOOP.get_or_init(|| EventLoop::spawn().expect("the device loop"))
}

impl Guest {
    fn new(mut device: Vsock) -> Self {
        let memory = Memory::anonymous(4 << 20).expect("guest memory");
        let interrupt = Arc::new(Interrupt::new().expect("an interrupt"));
        let ring = |base, size| Ring::new(&memory, &interrupt, base, size);
        let (rx, tx, event) = (ring(RX, SIZE), ring(TX, SIZE), ring(EVENT, 16));
        let queues = vec![rx.activate(0), tx.activate(1), event.activate(2)];
        let activation =
            Activation { memory: memory.clone(), queues, interrupt: Arc::clone(&interrupt), features: 0 };
        device.activate(activation).expect("activate the device");
        Self {
            memory,
            interrupt,
            device,
            rx,
            tx,
            event,
            offered: 0,
            outstanding: 0,
            seen: vec![ports::AGENT],
        }
    }

    fn reset(mut self) -> Self {
        self.device.reset();
        Self::new(self.device)
    }

    fn port(&self, port: Port) -> u32 {
        match port {
            Port::Agent => ports::AGENT,
            Port::Number(number) => 1000 + u32::from(number % 4),
            Port::Seen(index) => self.seen[usize::from(index) % self.seen.len()],
            Port::Any(port) => port,
        }
    }

    fn send(&mut self, packet: &Packet) -> bool {
        let (source, destination) = packet.cids.unwrap_or((ports::GUEST_CID, HOST_CID));
        let payload = vec![b'x'; packet.payload.into()];
        let kind: u16 = if packet.stream { 1 } else { 2 };
        let mut bytes: Vec<u8> = Vec::new();
        bytes.extend(source.to_le_bytes());
        bytes.extend(destination.to_le_bytes());
        bytes.extend(self.port(packet.source).to_le_bytes());
        bytes.extend(self.port(packet.destination).to_le_bytes());
        bytes.extend(packet.length.unwrap_or(packet.payload.into()).to_le_bytes());
        bytes.extend(kind.to_le_bytes());
        bytes.extend(u16::from(packet.operation % 9).to_le_bytes());
        bytes.extend(u32::from(packet.flags % 5).to_le_bytes());
        bytes.extend(packet.credit.to_le_bytes());
        bytes.extend(packet.forwarded.to_le_bytes());
        bytes.extend(payload);
        self.memory.write_slice(&bytes, GuestAddress(SENT)).expect("in guest memory");
        // One buffer, or two that part anywhere.
        let all = bytes.len() as u32;
        let first = if packet.cut == 0 { all } else { u32::from(packet.cut).min(all) };
        let rest = Buffer { address: SENT + u64::from(first), length: all - first, writable: false };
        let first = Buffer { address: SENT, length: first, writable: false };
        if rest.length == 0 {
            self.tx.offer(&[first])
        } else {
            self.tx.offer(&[first, rest])
        }
        self.tx.kick();
        let alive = self.tx.wait();
        self.take_packets();
        alive
    }

    fn make_room(&mut self, count: u8, length: u16) {
        self.take_packets();
        for _ in 0..u16::from(count % 8).min(SIZE - self.outstanding) {
            let address = ROOM + ROOM_EACH * (self.offered % u64::from(SIZE));
            self.offered += 1;
            self.outstanding += 1;
            self.rx.offer(&[Buffer { address, length: length.into(), writable: true }]);
        }
        self.rx.kick();
    }

    /// Looks at what has come for the guest, and learns the host's ports from it.
    fn take_packets(&mut self) {
        for (head, written) in self.rx.take_used() {
            self.outstanding -= 1;
            if written == 0 {
                continue;
            }
            assert!(written as usize >= HEADER, "a packet of {written} bytes");
            // One buffer a chain, so the heads count buffers.
            let mut header = [0; HEADER];
            let at = GuestAddress(ROOM + ROOM_EACH * u64::from(head));
            self.memory.read_slice(&mut header, at).expect("in guest memory");
            let word = |at: usize| u32::from_le_bytes(header[at..at + 4].try_into().expect("four bytes"));
            assert_eq!(word(24) as usize, written as usize - HEADER, "the header's length");
            if self.seen.len() < 16 {
                self.seen.push(word(16));
            }
        }
    }

    /// False when the device must be reset.
    fn step(&mut self, step: &Step, name: &SocketAddr, clients: &mut Vec<UnixStream>) -> bool {
        match step {
            Step::Packet(packet) => return self.send(packet),
            Step::Room { count, length } => self.make_room(*count, *length),
            Step::Chain { descriptors, head, rx } => {
                let ring = if *rx { &mut self.rx } else { &mut self.tx };
                ring.offer_raw(descriptors, (*head).into(), ROOM);
                ring.kick();
                ring.look();
                return false;
            }
            Step::Connect { port } => {
                let line = format!("CONNECT {}\n", self.port(*port));
                clients.extend(connect(name, line.as_bytes()));
            }
            Step::Say { bytes } => clients.extend(connect(name, bytes)),
            Step::Write { client, length } => {
                if let Some(mut client) = of(clients, *client) {
                    let _ = client.write(&vec![b'y'; (*length).into()]);
                }
            }
            Step::Read { client } => {
                if let Some(mut client) = of(clients, *client) {
                    let _ = client.read(&mut [0; 4096]);
                }
            }
            Step::Leave { client } => {
                if !clients.is_empty() {
                    clients.swap_remove(usize::from(*client) % clients.len());
                }
            }
            Step::Reset => return false,
        }
        !self.interrupt.failed()
    }
}

fn of(clients: &[UnixStream], index: u8) -> Option<&UnixStream> {
    clients.get(usize::from(index) % clients.len().max(1))
}

fn connect(name: &SocketAddr, line: &[u8]) -> Option<UnixStream> {
    let mut client = UnixStream::connect_addr(name).ok()?;
    client.set_nonblocking(true).ok()?;
    let _ = client.write(line);
    Some(client)
}

fuzz_target!(|steps: Vec<Step>| {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let name = format!("bulkhead-fuzz-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
    let name = SocketAddr::from_abstract_name(name).expect("a name");
    let listener = UnixListener::bind_addr(&name).expect("a listener");
    let (agent, other_end) = UnixStream::pair().expect("a pair of sockets");
    other_end.set_nonblocking(true).expect("make a socket non-blocking");
    let device = Vsock::new(listener.into(), [(ports::AGENT, agent.into())], device_loop().handle());
    let mut guest = Guest::new(device.expect("the device"));
    let mut clients = vec![other_end];
    for step in steps.iter().take(MAX_STEPS) {
        if !guest.step(step, &name, &mut clients) {
            guest = guest.reset();
        }
    }
    guest.device.reset();
    let _ = guest.event;
});
