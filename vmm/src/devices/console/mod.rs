//! hvc0 (virtio 1.2, 5.3): what the guest kernel and the agent have to say. Output only.
//!
//!   guest tx buffer ──▶ `queue::take` ──▶ `Output` ──▶ the last bytes, for "the VM died" errors
//!   first UART (before hvc0) ──▶ `Early` ──┘      └──▶ log descriptor, when given; never waited for, and bounded
//!
//! Two queues: receive, whose buffers are never used, and transmit. Linux waits for each buffer to come back, so
//! what the guest wrote before it died has been taken.

mod early;
mod metrics;
mod output;
mod queue;

use std::{io, os::fd::OwnedFd, sync::Arc};

use virtio_bindings::virtio_ids::VIRTIO_ID_CONSOLE;

pub use self::{early::Early, output::Output};
use super::{
    device::{ActivateError, Activation, VirtioDevice},
    on_loop::OnLoop,
};
use crate::event_loop::{Events, Handle, Registrar, Subscriber, Token, borrow};

const QUEUE_SIZE: u16 = 64;
const TRANSMIT: usize = 1;

#[derive(Debug)]
pub struct Console {
    worker: OnLoop,
    output: Arc<Output>,
}

impl Console {
    /// `output` is kept by whoever reports the VM's end. The log of the first console of a machine counts.
    pub fn new(event_loop: Handle, output: Arc<Output>, log: Option<OwnedFd>) -> Self {
        if let Some(log) = log {
            output.log_to(log);
        }
        Self { worker: OnLoop::new("console", event_loop), output }
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
        let worker = Worker { activation, output: Arc::clone(&self.output) };
        self.worker.start(worker)
    }

    fn reset(&mut self) {
        self.worker.stop();
    }

    fn metrics(&self) -> Vec<(&'static str, u64)> {
        self.output.metrics().values()
    }
}

#[derive(Debug)]
struct Worker {
    activation: Activation,
    output: Arc<Output>,
}

impl Worker {
    fn serve(&mut self) {
        let Activation { memory, queues, interrupt, .. } = &mut self.activation;
        let Some(transmit) = queues.get_mut(TRANSMIT) else { return };
        transmit.clear_kick();
        let served = transmit.serve(&**memory, interrupt, |chain| {
            if queue::take(memory, chain, |bytes| self.output.say(bytes)).is_err() {
                self.output.metrics().error();
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

#[cfg(test)]
mod tests;
