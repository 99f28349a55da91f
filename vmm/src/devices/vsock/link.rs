//! One stream's host side: the socket, and the bytes it would not take yet.
//!
//!   guest buffers ──deliver──▶ socket, or if that is full ──▶ backlog ──flush──▶ socket
//!   socket ──pull──▶ guest buffers
//!
//! The backlog never exceeds the connection's window, because `Connection` refuses data beyond it; bytes count as
//! forwarded, and so earn the guest credit, only when they leave for the socket. Order is kept, nothing is dropped
//! unless the host's reader is gone.

use std::{
    collections::VecDeque,
    io,
    os::fd::{AsFd, OwnedFd},
    time::Instant,
};

use rustix::net::{SendFlags, Shutdown, send, shutdown};

use super::{
    connection::{Connection, Phase},
    packet::Buffers,
    socket,
};

/// Kept when the backlog has run empty; more goes back to the allocator.
const IDLE_BACKLOG: usize = 64 << 10;

#[derive(Debug)]
pub(super) struct Link {
    pub(super) connection: Connection,
    pub(super) socket: OwnedFd,
    /// When to give up waiting for the guest's answer.
    pub(super) deadline: Option<Instant>,
    backlog: VecDeque<u8>,
    /// The socket may have something to read (its last event is not read out yet).
    readable: bool,
    /// The host has closed or half-closed: behind the last bytes is the end of file.
    ended: bool,
    read_closed: bool,
    write_closed: bool,
    /// Watched for room to write.
    pub(super) watched_for_room: bool,
    /// In the muxer's queue of streams with something for the guest.
    pub(super) queued: bool,
}

/// What a `pull` brought.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Pulled {
    Bytes(u32),
    Nothing,
}

impl Link {
    pub(super) fn new(connection: Connection, socket: OwnedFd, deadline: Option<Instant>) -> Self {
        Self {
            connection,
            socket,
            deadline,
            backlog: VecDeque::new(),
            readable: false,
            ended: false,
            read_closed: false,
            write_closed: false,
            watched_for_room: false,
            queued: false,
        }
    }

    /// Bytes that wait for the host.
    pub(super) fn backlog(&self) -> usize {
        self.backlog.len()
    }

    /// There may be bytes to read, or the end of file.
    pub(super) fn may_read(&mut self) {
        self.readable = true;
    }

    /// The host will send no more.
    pub(super) fn host_ended(&mut self) {
        self.readable = true;
        self.ended = true;
    }

    /// Nobody is at the other end of the socket any more.
    pub(super) fn host_left(&mut self) {
        self.connection.host_left();
        let forgotten = self.backlog.len() as u32;
        self.backlog = VecDeque::new();
        self.connection.forwarded(forgotten);
    }

    /// Whether the next packet to the guest may come from here.
    pub(super) fn has_packet(&self) -> bool {
        self.connection.owes() || (self.readable && self.connection.credit() > 0)
    }

    /// Takes a packet's payload, which fits the window.
    pub(super) fn deliver(&mut self, payload: &Buffers<'_>) {
        let mut sent = 0;
        while self.backlog.is_empty() && sent < payload.len() {
            match socket::send(self.socket.as_fd(), payload.part(sent, payload.len() - sent).slices()) {
                Ok(n) => {
                    sent += n;
                    self.connection.forwarded(n as u32);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(_) => {
                    self.host_left();
                    self.connection.forwarded((payload.len() - sent) as u32);
                    return;
                }
            }
        }
        if sent < payload.len() {
            payload.part(sent, payload.len() - sent).append_to(&mut self.backlog);
        }
    }

    /// Writes out what waits, as far as the socket takes it.
    pub(super) fn flush(&mut self) {
        while !self.backlog.is_empty() {
            match send(
                self.socket.as_fd(),
                self.backlog.as_slices().0,
                SendFlags::DONTWAIT | SendFlags::NOSIGNAL,
            ) {
                Ok(n) => {
                    self.backlog.drain(..n);
                    self.connection.forwarded(n as u32);
                }
                Err(rustix::io::Errno::AGAIN) => return,
                Err(rustix::io::Errno::INTR) => {}
                Err(_) => return self.host_left(),
            }
        }
        if self.backlog.capacity() > IDLE_BACKLOG {
            self.backlog = VecDeque::new();
        }
    }

    /// Sends the answer of the handshake, before any byte of the guest.
    pub(super) fn answer(&mut self, line: &str) -> bool {
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        // The first bytes on a fresh socket: it takes a line, or the client is gone.
        matches!(send(self.socket.as_fd(), line.as_bytes(), flags), Ok(n) if n == line.len())
    }

    /// Reads into guest memory, as much as the guest has credit for.
    pub(super) fn pull(&mut self, payload: &Buffers<'_>) -> Pulled {
        let room = payload.len().min(self.connection.credit() as usize);
        if !self.readable || room == 0 {
            return Pulled::Nothing;
        }
        match socket::receive(self.socket.as_fd(), payload.part(0, room).slices()) {
            Ok(0) => {
                self.readable = false;
                self.connection.host_sent_all();
                Pulled::Nothing
            }
            Ok(n) => {
                // Less than asked for: the socket is empty, and whatever comes now makes a new event.
                self.readable = n == room || self.ended;
                Pulled::Bytes(n as u32)
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.readable = false;
                Pulled::Nothing
            }
            Err(_) => {
                self.readable = false;
                self.connection.host_sent_all();
                self.host_left();
                Pulled::Nothing
            }
        }
    }

    /// Passes on to the host what has ended on the guest's side. True when nothing is left to do for this stream.
    pub(super) fn settle(&mut self) -> bool {
        self.connection.close_if_done();
        // After the last byte, never before: the reader's end of file must mean that it has everything.
        if !self.connection.guest_sends() && self.backlog.is_empty() && !self.write_closed {
            self.write_closed = true;
            // Fails only when the peer is gone, and then nobody needs to be told.
            let _ = shutdown(&self.socket, Shutdown::Write);
        }
        if !self.connection.guest_receives() && !self.read_closed {
            self.read_closed = true;
            self.readable = false;
            let _ = shutdown(&self.socket, Shutdown::Read);
        }
        self.connection.phase() == Phase::Reset && !self.connection.owes() && self.backlog.is_empty()
    }
}
