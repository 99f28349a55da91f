//! All streams of one guest: their table, what the guest and the host have for each other, and the order of turns.
//!
//!   guest packet ──`receive`──▶ stream ──▶ host socket
//!   host sockets, listener ──`poll_host`──▶ streams with something for the guest (round robin) ──`transmit`──▶ guest
//!
//! Owned by the loop thread; its epoll set holds every host socket, edge-triggered, so that a quiet stream costs
//! nothing and a busy one no system call but its own reads and writes. Everything that a guest or a client can
//! make grow has a cap: streams, clients that have not spoken yet, answers to strays, bytes per stream.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use bulkhead_protocol::ports::{GUEST_CID, HOST_CID};
use rustix::{
    event::{Timespec, epoll},
    net::{SocketFlags, accept_with},
};

use super::{
    connection::{Address, Connection, Phase, Verdict},
    handshake::{self, Client, Wish},
    link::{Link, Pulled},
    metrics::VsockMetrics,
    packet::{Buffers, HEADER, Header, MAX_PAYLOAD, Op, STREAM},
};

/// Streams and clients at once: far above 3 per process of a full sandbox in use, each at most `WIDE` bytes.
pub(super) const MAX_STREAMS: usize = 2048;
/// Clients that have not said yet which port they want.
const MAX_CLIENTS: usize = 128;
/// Resets that wait to be sent for packets of unknown streams; honest guests cause a handful.
const MAX_REPLIES: usize = 256;
/// Buffer of each stream while there are few: what Linux has in flight at most, so that a single stream runs at full speed.
pub(super) const WIDE: u32 = 256 << 10;
/// Buffer per stream when there are many, which bounds the memory: 64 wide ones and 2000 of these are 140 MiB.
pub(super) const NARROW: u32 = 64 << 10;
const WIDE_STREAMS: usize = 64;
/// From accept to the complete line, and from the request to the guest's answer.
const CLIENT_DEADLINE: Duration = Duration::from_secs(10);
const ANSWER_DEADLINE: Duration = Duration::from_secs(30);
/// Host ports of streams that the host opens, above all well-known ones.
const FIRST_PORT: u32 = 1 << 30;
const LAST_PORT: u32 = (1 << 31) - 1;

/// Names a host socket in the epoll set; never used twice.
type Token = u64;
const LISTENER: Token = 0;
const NO_WAIT: Timespec = Timespec { tv_sec: 0, tv_nsec: 0 };
/// Events per call and calls per pass; what is left keeps the set readable.
const EVENTS: usize = 64;
const ROUNDS: usize = 4;

/// The sockets behind the ports that the guest may connect to; each is taken once.
pub(super) type Ports = Arc<Mutex<BTreeMap<u32, OwnedFd>>>;

#[derive(Debug)]
pub(super) struct Muxer {
    epoll: OwnedFd,
    listener: Arc<OwnedFd>,
    /// Clients may wait in the listener's backlog.
    accepting: bool,
    ports: Ports,
    clients: HashMap<Token, Client>,
    links: HashMap<Token, Link>,
    tokens: HashMap<Address, Token>,
    /// Streams with a packet for the guest, each once.
    turns: VecDeque<Token>,
    /// Resets for strays.
    replies: VecDeque<Header>,
    deadlines: BTreeSet<(Instant, Token)>,
    next_token: Token,
    next_port: u32,
    metrics: Arc<VsockMetrics>,
}

impl Muxer {
    pub(super) fn new(listener: Arc<OwnedFd>, ports: Ports, metrics: Arc<VsockMetrics>) -> io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let events = epoll::EventFlags::IN | epoll::EventFlags::ET;
        epoll::add(&epoll, &*listener, epoll::EventData::new_u64(LISTENER), events)?;
        Ok(Self {
            epoll,
            listener,
            accepting: true,
            ports,
            clients: HashMap::new(),
            links: HashMap::new(),
            tokens: HashMap::new(),
            turns: VecDeque::new(),
            replies: VecDeque::new(),
            deadlines: BTreeSet::new(),
            next_token: LISTENER + 1,
            next_port: FIRST_PORT,
            metrics,
        })
    }

    /// Readable when `poll_host` has something to do.
    pub(super) fn host(&self) -> BorrowedFd<'_> {
        self.epoll.as_fd()
    }

    /// Whether the guest has something coming.
    pub(super) fn has_packet(&self) -> bool {
        !self.replies.is_empty() || !self.turns.is_empty()
    }

    /// Bytes that wait for hosts.
    #[cfg(test)]
    pub(super) fn held(&self) -> usize {
        self.links.values().map(Link::backlog).sum()
    }

    /// When `expire` wants to be called.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.deadlines.first().map(|(deadline, _)| *deadline)
    }

    /// Gives up on clients and requests that took too long.
    pub(super) fn expire(&mut self, now: Instant) {
        while let Some((deadline, token)) = self.deadlines.first().copied().filter(|(first, _)| *first <= now)
        {
            self.deadlines.remove(&(deadline, token));
            self.metrics.refused.increment();
            if let Some(client) = self.clients.remove(&token) {
                self.unwatch(&client.socket);
            } else if let Some(link) = self.links.get_mut(&token) {
                link.deadline = None;
                link.connection.reset();
                self.settle(token);
            }
        }
    }

    // ---- guest to host ----

    /// Takes one packet of the guest; `packet` is the whole of it, header included.
    pub(super) fn receive(&mut self, packet: &Buffers<'_>) {
        self.metrics.packets_from_guest.increment();
        let Some(header) = packet.read::<HEADER>().map(|bytes| Header::parse(&bytes)) else {
            self.metrics.bad_chains.increment();
            return;
        };
        if header.src_cid != GUEST_CID || header.dst_cid != HOST_CID {
            self.metrics.dropped.increment();
            return;
        }
        let op = Op::parse(header.op);
        let address = Address { host_port: header.dst_port, guest_port: header.src_port };
        match self.tokens.get(&address) {
            Some(token) if header.kind == STREAM => self.dispatch(*token, op, &header, packet),
            None if header.kind == STREAM && op == Some(Op::Request) => self.accept_guest(address, &header),
            Some(_) | None => self.stray(op, &header),
        }
    }

    fn dispatch(&mut self, token: Token, op: Option<Op>, header: &Header, packet: &Buffers<'_>) {
        let Some(link) = self.links.get_mut(&token) else { return };
        if op == Some(Op::Data) && (header.len > MAX_PAYLOAD || header.len as usize > packet.len() - HEADER) {
            link.connection.reset();
            self.metrics.violations.increment();
            return self.settle(token);
        }
        match link.connection.on_packet(op, header) {
            Verdict::Settle => {}
            Verdict::Opened => {
                if let Some(deadline) = link.deadline.take() {
                    self.deadlines.remove(&(deadline, token));
                }
                let host_port = link.connection.address().host_port;
                if link.answer(&handshake::granted(host_port)) {
                    self.metrics.opened.increment();
                    link.may_read();
                } else {
                    link.connection.reset();
                }
            }
            Verdict::Forward => {
                self.metrics.bytes_from_guest.add(header.len.into());
                link.deliver(&packet.part(HEADER, header.len as usize));
            }
            Verdict::Discard => link.connection.forwarded(header.len),
            Verdict::Violation => self.metrics.violations.increment(),
        }
        self.settle(token);
    }

    /// The guest asks for a port. It gets a port of the table, each port once.
    fn accept_guest(&mut self, address: Address, header: &Header) {
        if self.links.len() >= MAX_STREAMS {
            return self.stray(Some(Op::Request), header);
        }
        let socket = self.ports.lock().unwrap_or_else(PoisonError::into_inner).remove(&address.host_port);
        let Some(socket) = socket else { return self.stray(Some(Op::Request), header) };
        let token = self.token();
        if self.watch(&socket, token).is_err() {
            return self.stray(Some(Op::Request), header);
        }
        self.metrics.accepted.increment();
        let mut link = Link::new(Connection::accept(address, self.window(), header), socket, None);
        link.may_read();
        self.insert(token, link);
    }

    /// A packet that belongs nowhere is answered with a reset, so that the guest forgets its side.
    fn stray(&mut self, op: Option<Op>, header: &Header) {
        self.metrics.strays.increment();
        if op == Some(Op::Reset) {
            return;
        }
        if self.replies.len() == MAX_REPLIES {
            self.metrics.dropped.increment();
        } else {
            self.replies.push_back(header.reset_reply());
        }
    }

    // ---- host to guest ----

    /// Fills one buffer of the guest with the next packet; returns its length, or none if there is nothing to send.
    /// `buffers` has room for more than a header.
    pub(super) fn transmit(&mut self, buffers: &Buffers<'_>) -> Option<u32> {
        if let Some(reply) = self.replies.pop_front() {
            return Some(self.send(buffers, &reply));
        }
        while let Some(token) = self.turns.pop_front() {
            let Some(link) = self.links.get_mut(&token) else { continue };
            link.queued = false;
            let header = link.connection.next_control().or_else(|| {
                match link.pull(&buffers.part(HEADER, MAX_PAYLOAD as usize)) {
                    Pulled::Bytes(n) => Some(link.connection.data(n)),
                    Pulled::Nothing => None,
                }
            });
            // To the end of the queue, if it has more: every stream gets its turn.
            self.settle(token);
            if let Some(header) = header {
                return Some(self.send(buffers, &header));
            }
        }
        None
    }

    fn send(&mut self, buffers: &Buffers<'_>, header: &Header) -> u32 {
        buffers.write(&header.bytes());
        self.metrics.packets_to_guest.increment();
        self.metrics.bytes_to_guest.add(header.len.into());
        HEADER as u32 + header.len
    }

    /// Takes what has happened on the host's side.
    pub(super) fn poll_host(&mut self) {
        let mut events = Vec::with_capacity(EVENTS);
        for _ in 0..ROUNDS {
            events.clear();
            let buffer = rustix::buffer::spare_capacity(&mut events);
            if epoll::wait(&self.epoll, buffer, Some(&NO_WAIT)).is_err() {
                // A signal; the set stays readable.
                break;
            }
            for event in &events {
                self.on_event(event.data.u64(), event.flags);
            }
            if events.len() < EVENTS {
                break;
            }
        }
        self.accept_clients();
    }

    fn on_event(&mut self, token: Token, flags: epoll::EventFlags) {
        if token == LISTENER {
            self.accepting = true;
        } else if self.clients.contains_key(&token) {
            self.greet(token);
        } else if let Some(link) = self.links.get_mut(&token) {
            if flags.contains(epoll::EventFlags::IN) {
                link.may_read();
            }
            let hangup = epoll::EventFlags::HUP | epoll::EventFlags::ERR;
            if flags.intersects(hangup | epoll::EventFlags::RDHUP) {
                link.host_ended();
            }
            if flags.intersects(hangup) {
                link.host_left();
                if link.connection.phase() == Phase::Requested {
                    link.connection.reset();
                }
            } else if flags.contains(epoll::EventFlags::OUT) {
                link.flush();
            }
            self.settle(token);
        }
    }

    fn accept_clients(&mut self) {
        while self.accepting {
            let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
            match accept_with(&*self.listener, flags) {
                Ok(socket) => self.admit(socket),
                Err(rustix::io::Errno::INTR | rustix::io::Errno::CONNABORTED) => {}
                Err(rustix::io::Errno::AGAIN) => self.accepting = false,
                // Out of descriptors or memory: the next event of any socket tries again.
                Err(_) => break,
            }
        }
    }

    fn admit(&mut self, socket: OwnedFd) {
        let token = self.token();
        if self.clients.len() >= MAX_CLIENTS
            || self.links.len() >= MAX_STREAMS
            || self.watch(&socket, token).is_err()
        {
            self.metrics.refused.increment();
            return;
        }
        let deadline = Instant::now() + CLIENT_DEADLINE;
        self.deadlines.insert((deadline, token));
        self.clients.insert(token, Client { socket, deadline });
        self.greet(token);
    }

    /// Looks whether a client has said what it wants.
    fn greet(&mut self, token: Token) {
        let Some(wish) = self.clients.get(&token).map(Client::wish) else { return };
        if wish == Wish::Incomplete {
            return;
        }
        let Some(client) = self.clients.remove(&token) else { return };
        self.deadlines.remove(&(client.deadline, token));
        match wish {
            Wish::Port(guest_port) if self.links.len() < MAX_STREAMS => {
                let address = Address { host_port: self.port(), guest_port };
                let deadline = Instant::now() + ANSWER_DEADLINE;
                self.deadlines.insert((deadline, token));
                let connection = Connection::request(address, self.window());
                self.insert(token, Link::new(connection, client.socket, Some(deadline)));
            }
            Wish::Port(_) | Wish::Incomplete | Wish::Nonsense => {
                self.metrics.refused.increment();
                self.unwatch(&client.socket);
            }
        }
    }

    // ---- the table ----

    fn insert(&mut self, token: Token, link: Link) {
        self.tokens.insert(link.connection.address(), token);
        self.links.insert(token, link);
        self.settle(token);
    }

    /// After every change of a stream: ends what has ended, watches for room if bytes wait, and queues its turn.
    fn settle(&mut self, token: Token) {
        let Some(link) = self.links.get_mut(&token) else { return };
        if link.settle() {
            return self.remove(token);
        }
        let wants_room = link.backlog() > 0;
        if wants_room != link.watched_for_room {
            let room = if wants_room { epoll::EventFlags::OUT } else { epoll::EventFlags::empty() };
            // Setting the events looks at the socket anew, so no edge is lost. It cannot fail for a watched socket.
            if epoll::modify(&self.epoll, &link.socket, epoll::EventData::new_u64(token), watched() | room)
                .is_ok()
            {
                link.watched_for_room = wants_room;
            }
        }
        if !link.queued && link.has_packet() {
            link.queued = true;
            self.turns.push_back(token);
        }
    }

    fn remove(&mut self, token: Token) {
        let Some(link) = self.links.remove(&token) else { return };
        self.unwatch(&link.socket);
        if let Some(deadline) = link.deadline {
            self.deadlines.remove(&(deadline, token));
        }
        // The guest may have made a new stream with the addresses of one that only waited for its host.
        if self.tokens.get(&link.connection.address()) == Some(&token) {
            self.tokens.remove(&link.connection.address());
        }
        self.metrics.closed.increment();
    }

    fn watch(&self, socket: &OwnedFd, token: Token) -> io::Result<()> {
        Ok(epoll::add(&self.epoll, socket, epoll::EventData::new_u64(token), watched())?)
    }

    /// Closing is not enough when another process holds a copy of the descriptor.
    fn unwatch(&self, socket: &OwnedFd) {
        let _ = epoll::delete(&self.epoll, socket);
    }

    fn token(&mut self) -> Token {
        self.next_token += 1;
        self.next_token
    }

    fn port(&mut self) -> u32 {
        loop {
            self.next_port = if self.next_port == LAST_PORT { FIRST_PORT } else { self.next_port + 1 };
            let port = self.next_port;
            // Ends: there are far fewer streams than ports.
            if !self.tokens.keys().any(|address| address.host_port == port) {
                return port;
            }
        }
    }

    fn window(&self) -> u32 {
        if self.links.len() < WIDE_STREAMS { WIDE } else { NARROW }
    }
}

fn watched() -> epoll::EventFlags {
    epoll::EventFlags::IN | epoll::EventFlags::RDHUP | epoll::EventFlags::ET
}
