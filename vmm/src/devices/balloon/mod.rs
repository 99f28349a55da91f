//! Memory that the guest does not use goes back to the host (virtio 1.2, 5.5): free page reporting, and nothing else.
//!
//!   guest's free blocks of 2 MiB ──reporting queue──▶ `queue::give_back` ──▶ `Memory::discard`
//!
//! The balloon itself is never asked to grow: config space says 0 pages for ever. Its two queues are there because a
//! driver sets them up whatever it is offered; what comes in them is handed back untouched. The guest takes a reported
//! block into use by touching it, which costs it a fault and us no message.

mod metrics;
mod queue;

use std::{io, sync::Arc};

use virtio_bindings::virtio_ids::VIRTIO_ID_BALLOON;

use self::metrics::BalloonMetrics;
use super::{
    device::{ActivateError, Activation, VirtioDevice, copy_config},
    on_loop::OnLoop,
};
use crate::event_loop::{Events, Handle, Registrar, Subscriber, Token, borrow};

/// VIRTIO_BALLOON_F_REPORTING.
const REPORTING: u64 = 1 << 5;
/// Inflate, deflate, reporting: the queues of features that are not offered take no number. Linux reports 32 blocks
/// at once and wants a queue that takes them.
const QUEUE_SIZES: [u16; 3] = [16, 16, 32];
const REPORTS: usize = 2;
/// num_pages and actual, little-endian.
const CONFIG: [u8; 8] = [0; 8];

#[derive(Debug)]
pub struct Balloon {
    worker: OnLoop,
    metrics: Arc<BalloonMetrics>,
}

impl Balloon {
    pub fn new(event_loop: Handle) -> Self {
        Self { worker: OnLoop::new("balloon", event_loop), metrics: Arc::default() }
    }
}

impl VirtioDevice for Balloon {
    fn device_id(&self) -> u32 {
        VIRTIO_ID_BALLOON
    }

    fn features(&self) -> u64 {
        REPORTING
    }

    fn queue_sizes(&self) -> &[u16] {
        &QUEUE_SIZES
    }

    /// What the driver writes (how many pages it gave) is ignored: it is asked for none.
    fn read_config(&self, offset: u64, data: &mut [u8]) {
        copy_config(&CONFIG, offset, data);
    }

    fn activate(&mut self, activation: Activation) -> Result<(), ActivateError> {
        let worker = Worker { activation, metrics: Arc::clone(&self.metrics) };
        self.worker.start(worker)
    }

    fn reset(&mut self) {
        self.worker.stop();
    }

    fn metrics(&self) -> Vec<(&'static str, u64)> {
        self.metrics.values()
    }
}

#[derive(Debug)]
struct Worker {
    activation: Activation,
    metrics: Arc<BalloonMetrics>,
}

impl Worker {
    fn serve(&mut self) {
        let Activation { memory, queues, interrupt, .. } = &mut self.activation;
        for queue in queues {
            queue.clear_kick();
            let reports = queue.index() == REPORTS;
            let served = queue.serve(&**memory, interrupt, |chain| {
                if reports {
                    queue::give_back(memory, chain, &self.metrics);
                }
                0
            });
            if let Err(error) = served {
                crate::log::limited(&error);
                interrupt.fail();
            }
        }
    }
}

impl Subscriber for Worker {
    fn start(&mut self, registrar: &mut Registrar<'_>) -> io::Result<()> {
        for (token, queue) in (0..).map(Token).zip(&self.activation.queues) {
            registrar.add(borrow(queue.kick()), token, Events::IN)?;
        }
        self.serve();
        Ok(())
    }

    fn ready(&mut self, _token: Token, _events: Events, _registrar: &mut Registrar<'_>) {
        self.serve();
    }
}

#[cfg(test)]
mod tests;
