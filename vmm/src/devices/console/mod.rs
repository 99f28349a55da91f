//! hvc0 (virtio 1.2, 5.3): what the guest kernel and the agent have to say. Output only.
//!
//!   guest tx buffer ──▶ `queue::take` ──▶ `Tail` (the last bytes, for "the VM died" errors)
//!                                    └──▶ log descriptor, when given; never waited for, and bounded
//!
//! Two queues: receive, whose buffers are never used, and transmit. Linux waits for each buffer to come back, so
//! what the guest wrote before it died has been taken.

mod metrics;
mod queue;
mod tail;

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    sync::Arc,
};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use virtio_bindings::virtio_ids::VIRTIO_ID_CONSOLE;

use self::metrics::ConsoleMetrics;
pub use self::tail::Tail;
use super::{ActivateError, Activation, VirtioDevice};
use crate::event_loop::{Events, Handle, Registrar, Subscriber, SubscriberId, Token, borrow};

const QUEUE_SIZE: u16 = 64;
const TRANSMIT: usize = 1;
/// Bytes written to the log in the life of a VM: a guest must not fill the host's disk.
const LOG_MAX: u64 = 16 << 20;
/// What a pipe takes at once when poll says that it is writable (PIPE_BUF).
const LOG_CHUNK: usize = 4096;

#[derive(Debug)]
pub struct Console {
    event_loop: Handle,
    worker: Option<SubscriberId>,
    tail: Arc<Tail>,
    log: Option<Arc<OwnedFd>>,
    metrics: Arc<ConsoleMetrics>,
}

impl Console {
    /// `tail` is kept by whoever reports the VM's end.
    pub fn new(event_loop: Handle, tail: Arc<Tail>, log: Option<OwnedFd>) -> Self {
        Self { event_loop, worker: None, tail, log: log.map(Arc::new), metrics: Arc::default() }
    }
}

impl VirtioDevice for Console {
    fn device_id(&self) -> u32 {
        VIRTIO_ID_CONSOLE
    }

    fn queue_sizes(&self) -> &[u16] {
        &[QUEUE_SIZE, QUEUE_SIZE]
    }

    fn read_config(&self, _offset: u64, _data: &mut [u8]) {}

    fn activate(&mut self, activation: Activation) -> Result<(), ActivateError> {
        let worker = Worker {
            activation,
            tail: Arc::clone(&self.tail),
            log: self.log.clone(),
            metrics: Arc::clone(&self.metrics),
        };
        let failed = |error| ActivateError { device: "console", source: Box::new(error) };
        self.worker = Some(self.event_loop.add(Box::new(worker)).map_err(failed)?);
        Ok(())
    }

    fn reset(&mut self) {
        if let Some(worker) = self.worker.take()
            && let Err(error) = self.event_loop.remove(worker)
        {
            crate::log::limited(&error);
        }
    }

    fn metrics(&self) -> Vec<(&'static str, u64)> {
        self.metrics.values()
    }
}

#[derive(Debug)]
struct Worker {
    activation: Activation,
    tail: Arc<Tail>,
    log: Option<Arc<OwnedFd>>,
    metrics: Arc<ConsoleMetrics>,
}

impl Worker {
    fn serve(&mut self) {
        let Activation { memory, queues, interrupt, .. } = &mut self.activation;
        let Some(transmit) = queues.get_mut(TRANSMIT) else { return };
        transmit.clear_kick();
        let served = transmit.serve(&**memory, interrupt, |chain| {
            let taken = queue::take(memory, chain, |bytes| {
                self.metrics.taken(bytes.len());
                self.tail.push(bytes);
                if let Some(log) = &self.log {
                    write_log(log, bytes, &self.metrics);
                }
            });
            if taken.is_err() {
                self.metrics.error();
            }
            0
        });
        if let Err(error) = served {
            crate::log::limited(&error);
            interrupt.fail();
        }
    }
}

impl Subscriber for Worker {
    fn start(&mut self, registrar: &mut Registrar<'_>) -> io::Result<()> {
        if let Some(transmit) = self.activation.queues.get(TRANSMIT) {
            registrar.add(borrow(transmit.kick()), Token(0), Events::IN)?;
        }
        self.serve();
        Ok(())
    }

    fn ready(&mut self, _token: Token, _events: Events, _registrar: &mut Registrar<'_>) {
        self.serve();
    }
}

impl Drop for Worker {
    /// The guest may have died between its kick and our turn.
    fn drop(&mut self) {
        self.serve();
    }
}

/// Writes what the log takes now, and counts the rest as dropped.
fn write_log(log: &OwnedFd, bytes: &[u8], metrics: &ConsoleMetrics) {
    for chunk in bytes.chunks(LOG_CHUNK) {
        let mut ready = [PollFd::from_borrowed_fd(log.as_fd(), PollFlags::OUT)];
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        let writable = metrics.logged() < LOG_MAX
            && poll(&mut ready, Some(&now)).is_ok()
            && ready.iter().all(|log| log.revents() == PollFlags::OUT);
        let written = if writable { rustix::io::write(log, chunk).unwrap_or(0) } else { 0 };
        metrics.log(written, chunk.len() - written);
    }
}

#[cfg(test)]
mod tests;
