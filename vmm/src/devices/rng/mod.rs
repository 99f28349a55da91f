//! Entropy for the guest (virtio 1.2, 5.4), from the host kernel's generator.
//!
//!   guest buffer ──▶ `queue::fill` ◀── getrandom(2)
//!
//! One queue, no config space, no features. The device opens nothing, so it works in the jail.

mod metrics;
mod queue;

use std::{
    io::{self, Read},
    sync::Arc,
};

use virtio_bindings::virtio_ids::VIRTIO_ID_RNG;

use self::metrics::RngMetrics;
use super::{
    device::{ActivateError, Activation, VirtioDevice},
    on_loop::OnLoop,
    queue::ActiveQueue,
};
use crate::event_loop::{Events, Handle, Registrar, Subscriber, Token, borrow};

const QUEUE_SIZE: u16 = 64;

#[derive(Debug)]
pub struct Rng {
    worker: OnLoop,
    metrics: Arc<RngMetrics>,
}

impl Rng {
    pub fn new(event_loop: Handle) -> Self {
        Self { worker: OnLoop::new("rng", event_loop), metrics: Arc::default() }
    }
}

impl VirtioDevice for Rng {
    fn device_id(&self) -> u32 {
        VIRTIO_ID_RNG
    }

    fn queue_sizes(&self) -> &[u16] {
        &[QUEUE_SIZE]
    }

    fn read_config(&self, _offset: u64, _data: &mut [u8]) {}

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
    metrics: Arc<RngMetrics>,
}

impl Worker {
    fn serve(&mut self) {
        let Activation { memory, queues, interrupt, .. } = &mut self.activation;
        let metrics = &self.metrics;
        for requests in queues {
            requests.clear_kick();
            let served = requests.serve(&**memory, interrupt, |chain| {
                let filled = queue::fill(memory, chain, &mut HostEntropy);
                metrics.count(&filled);
                filled.unwrap_or(0)
            });
            if let Err(error) = served {
                crate::log::limited(&error);
                interrupt.fail();
            }
        }
    }

    fn requests(&self) -> Option<&ActiveQueue> {
        self.activation.queues.first()
    }
}

impl Subscriber for Worker {
    fn start(&mut self, registrar: &mut Registrar<'_>) -> io::Result<()> {
        if let Some(requests) = self.requests() {
            registrar.add(borrow(requests.kick()), Token(0), Events::IN)?;
        }
        self.serve();
        Ok(())
    }

    fn ready(&mut self, _token: Token, _events: Events, _registrar: &mut Registrar<'_>) {
        self.serve();
    }
}

/// getrandom(2): never blocks once the host's generator is seeded, as it is long before a VMM runs.
struct HostEntropy;

impl Read for HostEntropy {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        Ok(rustix::rand::getrandom(buffer, rustix::rand::GetRandomFlags::empty())?)
    }
}

#[cfg(test)]
mod tests;
