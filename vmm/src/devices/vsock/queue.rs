//! The worker: both queues against the muxer, on the device loop, without a system call of its own but the doorbells.
//!
//!   tx kick, rx kick, host event ──▶ `work`: tx chains → muxer, muxer → rx chains, until neither moves
//!
//! A pass takes at most `BATCH` chains per queue before the other queue and the host get their turn, and `work` at
//! most `TURNS` passes before the loop's other devices do. Doorbells are off while it works; the rx queue's stays
//! off unless packets wait for buffers, because a driver that returns buffers is no reason to wake up.

use std::{io, sync::Arc, time::Instant};

use super::{
    metrics::VsockMetrics,
    muxer::Muxer,
    packet::{Buffers, Direction, HEADER},
};
use crate::{
    devices::{
        interrupt::Interrupt,
        queue::{ActiveQueue, QueueError},
    },
    event_loop::{Events, Registrar, Subscriber, Token, borrow},
    memory::Memory,
};

const BATCH: usize = 128;
const TURNS: usize = 8;

const RX_KICK: Token = Token(0);
const TX_KICK: Token = Token(1);
const EVENT_KICK: Token = Token(2);
const HOST: Token = Token(3);

#[derive(Debug)]
pub(super) struct Worker {
    pub(super) memory: Memory,
    pub(super) rx: ActiveQueue,
    pub(super) tx: ActiveQueue,
    /// Its buffers wait for a transport reset, which only a restored VM sends.
    pub(super) event: ActiveQueue,
    pub(super) interrupt: Arc<Interrupt>,
    pub(super) muxer: Muxer,
    pub(super) metrics: Arc<VsockMetrics>,
}

impl Subscriber for Worker {
    fn start(&mut self, registrar: &mut Registrar<'_>) -> io::Result<()> {
        registrar.add(borrow(self.rx.kick()), RX_KICK, Events::IN)?;
        registrar.add(borrow(self.tx.kick()), TX_KICK, Events::IN)?;
        registrar.add(borrow(self.event.kick()), EVENT_KICK, Events::IN)?;
        registrar.add(self.muxer.host(), HOST, Events::IN)?;
        self.muxer.poll_host();
        self.work();
        Ok(())
    }

    fn ready(&mut self, token: Token, _events: Events, _registrar: &mut Registrar<'_>) {
        match token {
            RX_KICK => self.rx.clear_kick(),
            TX_KICK => self.tx.clear_kick(),
            EVENT_KICK => return self.event.clear_kick(),
            _ => self.muxer.poll_host(),
        }
        self.work();
    }

    fn deadline(&self) -> Option<Instant> {
        self.muxer.deadline()
    }

    fn expired(&mut self, _registrar: &mut Registrar<'_>) {
        self.muxer.expire(Instant::now());
        self.work();
    }
}

impl Worker {
    /// Moves all there is to move.
    pub(super) fn work(&mut self) {
        if self.interrupt.failed() {
            return;
        }
        if self.turns().is_err() {
            // The driver broke a ring: nothing on it can be trusted until it resets the device.
            self.interrupt.fail();
        }
    }

    fn turns(&mut self) -> Result<(), QueueError> {
        for _ in 0..TURNS {
            self.tx.disable_kicks(&*self.memory)?;
            self.rx.disable_kicks(&*self.memory)?;
            let sent = self.take_from_guest()?;
            let received = self.give_to_guest()?;
            self.signal(sent, received);
            let more_to_take = self.tx.enable_kicks(&*self.memory)?;
            let more_to_give = self.muxer.has_packet() && self.rx.enable_kicks(&*self.memory)?;
            if !more_to_take && !more_to_give {
                return Ok(());
            }
        }
        // Others' turn; the doorbell brings us back.
        let _ = self.tx.kick().write(1);
        Ok(())
    }

    fn signal(&mut self, sent: bool, received: bool) {
        // Both are asked: the question itself tells the driver's event index how far we are.
        let sent = sent && self.tx.needs_interrupt(&*self.memory);
        let received = received && self.rx.needs_interrupt(&*self.memory);
        if sent || received {
            self.interrupt.signal_queue();
        }
    }

    /// The guest's packets; true if any chain was returned.
    fn take_from_guest(&mut self) -> Result<bool, QueueError> {
        let memory = &*self.memory;
        for done in 0..BATCH {
            let Some(chain) = self.tx.pop(memory)? else { return Ok(done > 0) };
            let head = chain.head_index();
            match Buffers::collect(memory, chain, Direction::FromGuest) {
                Some(packet) => self.muxer.receive(&packet),
                None => self.metrics.bad_chains.increment(),
            }
            self.tx.push(memory, head, 0)?;
        }
        Ok(true)
    }

    /// Packets for the guest; true if any chain was returned.
    fn give_to_guest(&mut self) -> Result<bool, QueueError> {
        let memory = &*self.memory;
        let mut done = 0;
        while done < BATCH && self.muxer.has_packet() {
            let Some(chain) = self.rx.pop(memory)? else { break };
            let head = chain.head_index();
            let buffers =
                Buffers::collect(memory, chain, Direction::ToGuest).filter(|buffers| buffers.len() > HEADER);
            let len = match buffers {
                Some(buffers) => self.muxer.transmit(&buffers),
                None => {
                    self.metrics.bad_chains.increment();
                    Some(0)
                }
            };
            let Some(len) = len else {
                self.rx.undo_pop();
                break;
            };
            self.rx.push(memory, head, len)?;
            done += 1;
        }
        Ok(done > 0)
    }
}
