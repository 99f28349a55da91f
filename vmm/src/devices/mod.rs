//! The devices of a machine: the border between the transport and a device, and the list of all devices.
//!
//!   vCPU exit ──▶ mmio (status machine, registers) ──▶ `VirtioDevice` ──activate──▶ worker on the device loop
//!                                                                                 (or threads of its own: fs)
//!
//! The transport owns a `VirtioDevice` and calls it from vCPU threads, one at a time. At DRIVER_OK the device gets
//! an `Activation`, makes its worker of it and hands that to the loop; `reset` takes the worker back and drops it.

pub mod balloon;
pub mod console;
pub mod fs;
pub mod interrupt;
pub mod mem;
pub mod mmio;
pub mod net;
mod on_loop;
pub mod queue;
pub mod rng;
#[cfg(test)]
pub(crate) mod testing;
pub mod vsock;

use std::{error::Error, fmt::Debug, fs::File, sync::Arc};

use bulkhead_protocol::vmm::Device;

use self::{console::Output, interrupt::Interrupt, queue::ActiveQueue};
use crate::{
    control::fds::{Fds, MissingFd},
    event_loop::Handle,
    memory::Memory,
};

/// A device as the transport sees it.
pub trait VirtioDevice: Send + Debug {
    /// The virtio device id (virtio 1.2, 5), never 0.
    fn device_id(&self) -> u32;

    /// Feature bits beyond VERSION_1 and RING_EVENT_IDX, which the transport offers for all.
    fn features(&self) -> u64 {
        0
    }

    /// The largest size of each queue, a power of two.
    fn queue_sizes(&self) -> &[u16];

    /// Fills `data` from config space; what lies beyond the end of config space stays zero.
    fn read_config(&self, offset: u64, data: &mut [u8]);

    /// Config space is read-only unless a device says otherwise.
    fn write_config(&mut self, _offset: u64, _data: &[u8]) {}

    /// The driver is ready. An error shows as DEVICE_NEEDS_RESET.
    fn activate(&mut self, activation: Activation) -> Result<(), ActivateError>;

    /// Back to before `activate`. When it returns no queue is touched any more. Called before every activation but
    /// the first, and at unplug; may come when the device is not active.
    fn reset(&mut self);

    /// Counters: name without the device's name, value.
    fn metrics(&self) -> Vec<(&'static str, u64)> {
        Vec::new()
    }
}

/// All that a device gets at DRIVER_OK.
#[derive(Debug)]
pub struct Activation {
    pub memory: Memory,
    /// One for each of `VirtioDevice::queue_sizes`, all ready and in bounds.
    pub queues: Vec<ActiveQueue>,
    pub interrupt: Arc<Interrupt>,
    /// What the driver acknowledged: a subset of what was offered.
    pub features: u64,
}

#[derive(Debug, thiserror::Error)]
#[error("activate {device}")]
pub struct ActivateError {
    pub device: &'static str,
    pub source: Box<dyn Error + Send + Sync>,
}

/// What devices are built from beside their own configuration.
#[derive(Debug)]
pub struct Context {
    pub event_loop: Handle,
    pub console: Arc<Output>,
    /// /proc/self/fd of a procfs that shows this process alone.
    pub proc_self_fd: File,
    /// What the guest has of the host's files.
    pub shares: Arc<fs::Shares>,
    /// Inodes and open files of the guest.
    pub files: u64,
    /// What the guest's memory may grow by.
    pub room: Option<Arc<mem::Room>>,
}

#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    #[error(transparent)]
    Fd(#[from] MissingFd),
    #[error("the machine's memory has no room to grow")]
    NoRoom,
    #[error("configure {device}")]
    Device { device: &'static str, source: Box<dyn Error + Send + Sync> },
}

impl BuildError {
    /// Whether the request is wrong, and not the device's surroundings.
    pub fn is_invalid(&self) -> bool {
        matches!(self, Self::Fd(_) | Self::NoRoom)
    }
}

/// Makes the device that a request describes. The list of all devices is this `match`.
pub fn build(device: Device, fds: &mut Fds, context: &Context) -> Result<Box<dyn VirtioDevice>, BuildError> {
    let event_loop = context.event_loop.clone();
    Ok(match device {
        Device::Console { log } => {
            let log = log.map(|log| fds.take(log, "console log")).transpose()?;
            Box::new(console::Console::new(event_loop, Arc::clone(&context.console), log))
        }
        Device::Vsock { listener, ports } => {
            let listener = fds.take(listener, "vsock listener")?;
            let ports = ports
                .into_iter()
                .map(|port| Ok((port.port, fds.take(port.socket, "guest port")?)))
                .collect::<Result<Vec<_>, MissingFd>>()?;
            let vsock = vsock::Vsock::new(listener, ports, event_loop)
                .map_err(|error| BuildError::Device { device: "vsock", source: Box::new(error) })?;
            Box::new(vsock)
        }
        Device::Fs { tag, read_only, strip_setuid } => {
            let failed = |source| BuildError::Device { device: "fs", source };
            let proc_self_fd = context.proc_self_fd.try_clone().map_err(|error| failed(error.into()))?;
            let (shares, files) = (Arc::clone(&context.shares), context.files);
            let root = "/".into();
            let config = fs::Config { tag, read_only, strip_setuid, root, proc_self_fd, shares, files };
            Box::new(fs::Fs::new(config).map_err(|error| failed(error.into()))?)
        }
        Device::Net { tap, vhost, mac, mtu } => {
            let tap = fds.take(tap, "tap")?;
            let vhost = vhost.map(|vhost| fds.take(vhost, "vhost-net")).transpose()?;
            let net = net::Net::new(tap, vhost, mac, mtu, event_loop)
                .map_err(|error| BuildError::Device { device: "net", source: Box::new(error) })?;
            Box::new(net)
        }
        Device::Rng => Box::new(rng::Rng::new(event_loop)),
        Device::Balloon => Box::new(balloon::Balloon::new(event_loop)),
        Device::Mem => {
            let room = context.room.clone().ok_or(BuildError::NoRoom)?;
            Box::new(mem::Mem::new(event_loop, room))
        }
    })
}

/// Copies the part of `config` that `[offset, offset + data.len())` covers; a device's whole `read_config`.
pub fn copy_config(config: &[u8], offset: u64, data: &mut [u8]) {
    let Ok(offset) = usize::try_from(offset) else { return };
    let Some(rest) = config.get(offset..) else { return };
    for (to, from) in data.iter_mut().zip(rest) {
        *to = *from;
    }
}
