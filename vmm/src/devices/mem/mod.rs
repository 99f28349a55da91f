//! Memory that comes and goes while the guest runs (virtio 1.2, 5.15): the hotplug region, in blocks of 2 MiB.
//!
//!   server ──ResizeMemory──▶ `Room::resize` ──config interrupt──▶ driver
//!   driver ──request queue──▶ `queue::answer` ──▶ `Room` (checked) ──▶ `Memory::set_accessible`, `discard`
//!
//! The host says how much, the driver which blocks, and never more than it was told. A block that is not plugged has no
//! access rights, so the driver must have accepted that it cannot even be read. The `Room` belongs to the machine: what
//! is plugged survives a reset of the device, as the driver expects.

mod metrics;
mod queue;
mod room;

use std::{io, sync::Arc};

use virtio_bindings::virtio_ids::VIRTIO_ID_MEM;

pub use self::room::Room;
use self::{metrics::MemMetrics, room::BLOCK};
use super::{
    device::{ActivateError, Activation, VirtioDevice, copy_config},
    on_loop::OnLoop,
    queue::ActiveQueue,
};
use crate::event_loop::{Events, Handle, Registrar, Subscriber, Token, borrow};

/// VIRTIO_MEM_F_UNPLUGGED_INACCESSIBLE.
const UNPLUGGED_INACCESSIBLE: u64 = 1 << 1;
const DEVICE: &str = "mem";
const QUEUE_SIZE: u16 = 16;

#[derive(Debug)]
pub struct Mem {
    worker: OnLoop,
    room: Arc<Room>,
    metrics: Arc<MemMetrics>,
}

impl Mem {
    pub fn new(event_loop: Handle, room: Arc<Room>) -> Self {
        Self { worker: OnLoop::new(DEVICE, event_loop), room, metrics: Arc::default() }
    }

    /// block_size, node_id and padding, addr, region_size, usable_region_size, plugged_size, requested_size; all of
    /// the region is usable at any time.
    fn config(&self) -> [u8; 56] {
        let room = &self.room;
        let node = 0;
        let words = [BLOCK, node, room.address(), room.size(), room.size(), room.plugged(), room.requested()];
        let mut config = [0; 56];
        for (place, word) in config.chunks_exact_mut(8).zip(words) {
            place.copy_from_slice(&word.to_le_bytes());
        }
        config
    }
}

impl VirtioDevice for Mem {
    fn device_id(&self) -> u32 {
        VIRTIO_ID_MEM
    }

    fn features(&self) -> u64 {
        UNPLUGGED_INACCESSIBLE
    }

    fn queue_sizes(&self) -> &[u16] {
        &[QUEUE_SIZE]
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        copy_config(&self.config(), offset, data);
    }

    fn activate(&mut self, activation: Activation) -> Result<(), ActivateError> {
        if activation.features & UNPLUGGED_INACCESSIBLE == 0 {
            let source = "the driver wants to read memory that is not plugged".into();
            return Err(ActivateError { device: DEVICE, source });
        }
        self.room.tell(Some(Arc::clone(&activation.interrupt)));
        let worker = Worker { activation, room: Arc::clone(&self.room), metrics: Arc::clone(&self.metrics) };
        self.worker.start(worker)
    }

    fn reset(&mut self) {
        self.room.tell(None);
        self.worker.stop();
    }

    fn metrics(&self) -> Vec<(&'static str, u64)> {
        let sizes = [("plugged_bytes", self.room.plugged()), ("requested_bytes", self.room.requested())];
        sizes.into_iter().chain(self.metrics.values()).collect()
    }
}

#[derive(Debug)]
struct Worker {
    activation: Activation,
    room: Arc<Room>,
    metrics: Arc<MemMetrics>,
}

impl Worker {
    fn serve(&mut self) {
        let Activation { memory, queues, interrupt, .. } = &mut self.activation;
        for requests in queues {
            requests.clear_kick();
            let served = requests.serve(&**memory, interrupt, |chain| {
                queue::answer(memory, chain, &self.room, &self.metrics).unwrap_or_else(|error| {
                    self.metrics.error();
                    crate::log::limited(&error);
                    0
                })
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

#[cfg(test)]
mod tests;
