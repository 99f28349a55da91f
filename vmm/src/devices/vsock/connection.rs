//! One stream as the protocol sees it: phase, directions, credit, and what the guest still has to be told.
//!
//!   guest packet ──`on_packet`──▶ `Verdict`           host socket events ──`host_*`──▶ flags
//!   ──`next_control`──▶ the control packet that is owed to the guest, if any
//!
//! No descriptor, no memory, no clock: the muxer moves the bytes and asks here what is allowed. Both directions end
//! on their own; when both are over the guest gets a reset at once, because Linux waits for it (8 s otherwise).
//!
//! Credit (virtio 1.3, 5.10.6.3): each side says how large its buffer is and how many bytes have left it, in wrapping
//! 32-bit counters. What the guest says is a claim: counters that run backwards or ahead of what was sent are ignored.

use std::num::Wrapping;

use super::packet::{Header, Op, SHUTDOWN_RECEIVE, SHUTDOWN_SEND, STREAM};

/// The addresses of a stream, in the host's view.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Address {
    pub(super) host_port: u32,
    pub(super) guest_port: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// A request is (to be) sent to the guest; no answer yet.
    Requested,
    Open,
    /// The guest knows nothing of this stream any more (or will not when it has the reset that is owed to it).
    /// What it sent before may still wait for the host.
    Reset,
}

/// What the muxer has to do about a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// All that follows shows in the flags.
    Settle,
    /// The guest has accepted the request.
    Opened,
    /// Forward the payload.
    Forward,
    /// The host reads no more: forget the payload.
    Discard,
    /// The guest broke the protocol; it is owed a reset.
    Violation,
}

#[derive(Debug)]
pub(super) struct Connection {
    address: Address,
    phase: Phase,

    /// Our buffer, and the bytes that came into and left it.
    window: u32,
    received: Wrapping<u32>,
    forwarded: Wrapping<u32>,
    /// `forwarded` as the guest knows it.
    advertised: Wrapping<u32>,

    /// The guest's buffer by its own words, what it says left it, and what we sent.
    peer_window: u32,
    peer_forwarded: Wrapping<u32>,
    sent: Wrapping<u32>,

    guest_sends: bool,
    guest_receives: bool,
    host_sends: bool,
    host_receives: bool,

    owes_opening: Option<Op>,
    owes_credit: bool,
    owes_reset: bool,
    /// The shutdown flags that the guest has been told.
    told: u32,
}

impl Connection {
    /// A stream that the host asks for.
    pub(super) fn request(address: Address, window: u32) -> Self {
        Self::new(address, Phase::Requested, Op::Request, window)
    }

    /// A stream that the guest asked for with `header`, granted.
    pub(super) fn accept(address: Address, window: u32, header: &Header) -> Self {
        let mut connection = Self::new(address, Phase::Open, Op::Response, window);
        connection.peer_window = header.buf_alloc;
        connection
    }

    fn new(address: Address, phase: Phase, opening: Op, window: u32) -> Self {
        Self {
            address,
            phase,
            window,
            received: Wrapping(0),
            forwarded: Wrapping(0),
            advertised: Wrapping(0),
            peer_window: 0,
            peer_forwarded: Wrapping(0),
            sent: Wrapping(0),
            guest_sends: true,
            guest_receives: true,
            host_sends: true,
            host_receives: true,
            owes_opening: Some(opening),
            owes_credit: false,
            owes_reset: false,
            told: 0,
        }
    }

    pub(super) fn address(&self) -> Address {
        self.address
    }

    pub(super) fn phase(&self) -> Phase {
        self.phase
    }

    /// The guest will send no more: once what it sent is out, the host's reader gets its end of file.
    pub(super) fn guest_sends(&self) -> bool {
        self.guest_sends
    }

    /// The guest reads on: else the host's writer should hear of it.
    pub(super) fn guest_receives(&self) -> bool {
        self.guest_receives
    }

    /// The whole protocol on one screen: what each packet means in each phase.
    pub(super) fn on_packet(&mut self, op: Option<Op>, header: &Header) -> Verdict {
        self.take_credit(header);
        match (op, self.phase) {
            (Some(Op::Response), Phase::Requested) => {
                self.phase = Phase::Open;
                Verdict::Opened
            }
            (Some(Op::Data), Phase::Open) => self.on_data(header.len),
            (Some(Op::Shutdown), Phase::Open) => {
                self.guest_receives &= header.flags & SHUTDOWN_RECEIVE == 0;
                self.guest_sends &= header.flags & SHUTDOWN_SEND == 0;
                Verdict::Settle
            }
            (Some(Op::CreditUpdate), Phase::Open) => Verdict::Settle,
            (Some(Op::CreditRequest), Phase::Open) => {
                self.owes_credit = true;
                Verdict::Settle
            }
            (Some(Op::Reset), Phase::Requested | Phase::Open | Phase::Reset) => {
                self.end();
                self.owes_reset = false;
                Verdict::Settle
            }
            // A reset is on its way to the guest, or the guest has one: what it sent meanwhile is void.
            (Some(Op::Data | Op::Shutdown | Op::CreditUpdate | Op::CreditRequest), Phase::Reset) => {
                self.owes_reset = true;
                Verdict::Settle
            }
            (Some(Op::Data | Op::Shutdown | Op::CreditUpdate | Op::CreditRequest), Phase::Requested)
            | (Some(Op::Response), Phase::Open | Phase::Reset)
            | (Some(Op::Request) | None, Phase::Requested | Phase::Open | Phase::Reset) => {
                self.reset();
                Verdict::Violation
            }
        }
    }

    fn on_data(&mut self, len: u32) -> Verdict {
        let free = self.window - (self.received - self.forwarded).0;
        if !self.guest_sends || len > free {
            self.reset();
            return Verdict::Violation;
        }
        self.received += len;
        if self.host_receives { Verdict::Forward } else { Verdict::Discard }
    }

    fn take_credit(&mut self, header: &Header) {
        let claimed = Wrapping(header.fwd_cnt);
        // Two threads of a guest may stamp in one order and send in the other, so an old value is no violation.
        if (claimed - self.peer_forwarded).0 <= (self.sent - self.peer_forwarded).0 {
            self.peer_forwarded = claimed;
        }
        self.peer_window = header.buf_alloc;
    }

    /// Bytes that the guest has room for.
    pub(super) fn credit(&self) -> u32 {
        if self.phase != Phase::Open || !self.guest_receives || !self.host_sends {
            return 0;
        }
        self.peer_window.saturating_sub((self.sent - self.peer_forwarded).0)
    }

    /// `len` bytes left our buffer for the host, or were forgotten.
    pub(super) fn forwarded(&mut self, len: u32) {
        self.forwarded += len;
        // Half: often enough that the guest never waits for an idle host, rare enough to cost little.
        self.owes_credit |= self.guest_sends && (self.forwarded - self.advertised).0 >= self.window / 2;
    }

    /// The host has half-closed, and all it sent is with the guest.
    pub(super) fn host_sent_all(&mut self) {
        self.host_sends = false;
    }

    /// Nobody reads on the host's side.
    pub(super) fn host_left(&mut self) {
        self.host_receives = false;
    }

    /// Ends the stream for the guest.
    pub(super) fn reset(&mut self) {
        // A request that was never sent needs no reset.
        self.owes_reset = self.owes_opening != Some(Op::Request);
        self.end();
    }

    fn end(&mut self) {
        self.phase = Phase::Reset;
        self.guest_sends = false;
        self.guest_receives = false;
        self.owes_opening = None;
        self.owes_credit = false;
    }

    /// Resets the stream if both directions are over.
    pub(super) fn close_if_done(&mut self) {
        let to_host = self.guest_sends && self.host_receives;
        let to_guest = self.host_sends && self.guest_receives;
        if self.phase == Phase::Open && self.owes_opening.is_none() && !to_host && !to_guest {
            self.reset();
        }
    }

    pub(super) fn owes(&self) -> bool {
        self.owes_reset || self.owes_opening.is_some() || self.owes_shutdown().is_some() || self.owes_credit
    }

    fn owes_shutdown(&self) -> Option<u32> {
        let send = if self.host_sends { 0 } else { SHUTDOWN_SEND };
        let receive = if self.host_receives { 0 } else { SHUTDOWN_RECEIVE };
        let flags = send | receive;
        (self.phase == Phase::Open && flags & !self.told != 0).then_some(flags)
    }

    /// The next control packet for the guest. Credit goes along with every packet.
    pub(super) fn next_control(&mut self) -> Option<Header> {
        if self.owes_reset {
            self.owes_reset = false;
            return Some(self.header(Op::Reset, 0, 0));
        }
        if let Some(op) = self.owes_opening.take() {
            return Some(self.header(op, 0, 0));
        }
        if let Some(flags) = self.owes_shutdown() {
            self.told = flags;
            return Some(self.header(Op::Shutdown, 0, flags));
        }
        if self.owes_credit {
            return Some(self.header(Op::CreditUpdate, 0, 0));
        }
        None
    }

    /// The header of a packet with `len` bytes, at most `credit`.
    pub(super) fn data(&mut self, len: u32) -> Header {
        self.sent += len;
        self.header(Op::Data, len, 0)
    }

    fn header(&mut self, op: Op, len: u32, flags: u32) -> Header {
        self.advertised = self.forwarded;
        self.owes_credit = false;
        Header {
            src_cid: bulkhead_protocol::ports::HOST_CID,
            dst_cid: bulkhead_protocol::ports::GUEST_CID,
            src_port: self.address.host_port,
            dst_port: self.address.guest_port,
            len,
            kind: STREAM,
            op: op as u16,
            flags,
            buf_alloc: self.window,
            fwd_cnt: self.forwarded.0,
        }
    }
}
