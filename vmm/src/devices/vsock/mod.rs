//! virtio-vsock: byte streams between the host and the guest, multiplexed in user space (virtio 1.3, 5.10).
//!
//!   host client ─`CONNECT port\n`─▶ listener ─┐                       ┌─ rx queue ─▶ guest
//!   port table (sockets passed in) ───────────┴─▶ muxer ◀─▶ streams ──┴─ tx queue ◀─ guest
//!
//! No AF_VSOCK on the host. The host opens streams through the listening socket; the guest only to the ports of the
//! table, each once. Bytes go straight between guest memory and the sockets; when a reader is slow its stream's
//! buffer fills, credit stops, and the writer waits. `connection` holds the protocol, `link` one socket, `muxer` all
//! streams, `queue` the rings.

mod connection;
mod handshake;
mod link;
mod metrics;
mod muxer;
mod packet;
mod queue;
mod socket;

use std::{
    collections::BTreeMap,
    io,
    os::fd::OwnedFd,
    sync::{Arc, Mutex},
};

use bulkhead_protocol::ports::GUEST_CID;
use virtio_bindings::virtio_ids::VIRTIO_ID_VSOCK;

use self::{
    metrics::VsockMetrics,
    muxer::{Muxer, Ports},
    queue::Worker,
};
use super::{
    device::{ActivateError, Activation, VirtioDevice, copy_config},
    on_loop::OnLoop,
};
use crate::event_loop::Handle;

const DEVICE: &str = "vsock";
/// rx, tx, event. Linux fills the whole rx queue with 4 KiB buffers.
const QUEUE_SIZES: [u16; 3] = [256, 256, 16];

#[derive(Debug, thiserror::Error)]
pub enum VsockError {
    #[error("make the vsock listener non-blocking")]
    Listener { source: io::Error },
    #[error("guest port {port} is given twice")]
    PortTwice { port: u32 },
}

/// The device as the transport sees it; the worker runs on the device loop.
#[derive(Debug)]
pub struct Vsock {
    listener: Arc<OwnedFd>,
    ports: Ports,
    metrics: Arc<VsockMetrics>,
    worker: OnLoop,
}

impl Vsock {
    /// `listener`: a listening unix stream socket. `ports`: connected stream sockets, by the port that the guest asks for.
    ///
    /// # Errors
    /// A port is named twice, or the listener cannot be made non-blocking.
    pub fn new(
        listener: OwnedFd,
        ports: impl IntoIterator<Item = (u32, OwnedFd)>,
        event_loop: Handle,
    ) -> Result<Self, VsockError> {
        rustix::io::ioctl_fionbio(&listener, true)
            .map_err(|errno| VsockError::Listener { source: errno.into() })?;
        let mut table = BTreeMap::new();
        for (port, socket) in ports {
            if table.insert(port, socket).is_some() {
                return Err(VsockError::PortTwice { port });
            }
        }
        Ok(Self {
            listener: Arc::new(listener),
            ports: Arc::new(Mutex::new(table)),
            metrics: Arc::new(VsockMetrics::default()),
            worker: OnLoop::new(DEVICE, event_loop),
        })
    }
}

impl VirtioDevice for Vsock {
    fn device_id(&self) -> u32 {
        VIRTIO_ID_VSOCK
    }

    fn queue_sizes(&self) -> &[u16] {
        &QUEUE_SIZES
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        copy_config(&GUEST_CID.to_le_bytes(), offset, data);
    }

    fn activate(&mut self, activation: Activation) -> Result<(), ActivateError> {
        let failed = |source| ActivateError { device: DEVICE, source };
        let Ok([rx, tx, event]) = <[_; 3]>::try_from(activation.queues) else {
            return Err(failed("the transport set up another number of queues than three".into()));
        };
        let muxer =
            Muxer::new(Arc::clone(&self.listener), Arc::clone(&self.ports), Arc::clone(&self.metrics))
                .map_err(|error| failed(error.into()))?;
        let worker = Worker {
            memory: activation.memory,
            rx,
            tx,
            event,
            interrupt: activation.interrupt,
            muxer,
            metrics: Arc::clone(&self.metrics),
        };
        self.worker.start(worker)
    }

    fn reset(&mut self) {
        self.worker.stop();
    }

    fn metrics(&self) -> Vec<(&'static str, u64)> {
        self.metrics.values()
    }
}

#[cfg(test)]
mod tests;
