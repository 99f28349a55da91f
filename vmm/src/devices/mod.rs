//! The devices of a machine: the list of all of them, and how each is made.
//!
//!   vCPU exit ──▶ mmio (status machine, registers) ──▶ `VirtioDevice` ──activate──▶ worker on the device loop
//!                                                                                 (or threads of its own: fs, blk)
//!
//! `device` is the border between the transport and a device, `queue` and `interrupt` are what a device works with.
//! Imports go one way: mmio, each device ─▶ on_loop ─▶ device ─▶ queue ─▶ interrupt. No device knows another device.

pub mod balloon;
pub mod blk;
pub mod console;
pub mod device;
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

use std::{error::Error, fs::File, sync::Arc};

use bulkhead_protocol::vmm::Device;

use self::{console::Output, device::VirtioDevice};
use crate::{
    event_loop::Handle,
    fds::{Fds, MissingFd},
};

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
    /// Who serves disks.
    pub disks: blk::Pool,
}

#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    #[error(transparent)]
    Fd(#[from] MissingFd),
    #[error("the machine was booted without memory to plug: its max_memory_mib is its memory_mib")]
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
///
/// # Errors
/// A descriptor is missing, or the device refuses its configuration.
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
        Device::Fs { tag, read_only, strip_setuid, exclusive_rootfs } => {
            let failed = |source| BuildError::Device { device: "fs", source };
            let proc_self_fd = context.proc_self_fd.try_clone().map_err(|error| failed(error.into()))?;
            let (shares, files) = (Arc::clone(&context.shares), context.files);
            let root = "/".into();
            let config = fs::Config {
                tag,
                read_only,
                strip_setuid,
                exclusive_rootfs,
                root,
                proc_self_fd,
                shares,
                files,
            };
            Box::new(fs::Fs::new(config).map_err(|error| failed(error.into()))?)
        }
        Device::Net { tap, vhost, mac, mtu } => {
            let tap = fds.take(tap, "tap")?;
            let vhost = vhost.map(|vhost| fds.take(vhost, "vhost-net")).transpose()?;
            let net = net::Net::new(tap, vhost, mac, mtu, event_loop)
                .map_err(|error| BuildError::Device { device: "net", source: Box::new(error) })?;
            Box::new(net)
        }
        Device::Blk { file, sectors, block_size, read_only, serial } => {
            let file = fds.take(file, "disk")?;
            let config = blk::Config { file, sectors, block_size, read_only, serial };
            let blk = blk::Blk::new(config, context.disks.clone())
                .map_err(|error| BuildError::Device { device: "blk", source: Box::new(error) })?;
            Box::new(blk)
        }
        Device::Rng => Box::new(rng::Rng::new(event_loop)),
        Device::Balloon => Box::new(balloon::Balloon::new(event_loop)),
        Device::Mem => {
            let room = context.room.clone().ok_or(BuildError::NoRoom)?;
            Box::new(mem::Mem::new(event_loop, room))
        }
    })
}
