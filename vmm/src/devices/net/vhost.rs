//! The host kernel as the device's worker (vhost-net): the VMM says once where everything is, and is out of the way.
//!
//!   guest kick ──ioeventfd──▶ vhost worker (a kernel thread of this process) ◀──▶ tap
//!                                  └── irqfd ──▶ guest            └── a broken ring ──▶ `Watch` ──▶ NEEDS_RESET
//!
//! The kernel reaches guest memory by the addresses of this process, within the table it is given, and finds the same
//! rights there as this process does: memory that is not plugged is out of its reach too.

use std::{
    io,
    os::fd::{AsRawFd, OwnedFd, RawFd},
    sync::Arc,
};

use vhost::{
    VhostBackend, VhostUserMemoryRegionInfo, VringConfigData,
    vhost_kern::{
        VhostKernBackend,
        vhost_binding::{VHOST_NET_SET_BACKEND, vhost_vring_file},
    },
};
use virtio_bindings::{
    virtio_config::VIRTIO_F_VERSION_1,
    virtio_net::VIRTIO_NET_F_MRG_RXBUF,
    virtio_ring::{VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC},
};
use vm_memory::GuestMemoryMmap;
use vmm_sys_util::{
    eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd},
    ioctl::ioctl_with_ref,
};

use super::{error::NetError, features::merging};
use crate::{
    devices::{device::Activation, interrupt::Interrupt, queue::ActiveQueue},
    event_loop::{Events, Registrar, Subscriber, Token, borrow},
    memory::Memory,
};

/// What concerns the rings; the other features are between the driver and the tap.
const FEATURES: u64 = 1 << VIRTIO_F_VERSION_1
    | 1 << VIRTIO_NET_F_MRG_RXBUF
    | 1 << VIRTIO_RING_F_INDIRECT_DESC
    | 1 << VIRTIO_RING_F_EVENT_IDX;

/// Names the ioctl that failed.
fn step(step: &'static str) -> impl Fn(vhost::Error) -> NetError {
    move |source| NetError::Vhost { step, source }
}

/// A vhost-net that belongs to this process.
#[derive(Debug)]
pub(super) struct Vhost {
    fd: OwnedFd,
    /// Queues that the kernel serves.
    running: Vec<usize>,
}

impl Vhost {
    /// `fd` is a fresh /dev/vhost-net.
    pub(super) fn new(fd: OwnedFd) -> Result<Self, NetError> {
        let memory = GuestMemoryMmap::new();
        let kernel = Kernel { fd: &fd, memory: &memory };
        kernel.set_owner().map_err(step("VHOST_SET_OWNER"))?;
        let offered = kernel.get_features().map_err(step("VHOST_GET_FEATURES"))?;
        if offered & FEATURES != FEATURES {
            return Err(NetError::VhostFeatures { missing: FEATURES & !offered });
        }
        Ok(Self { fd, running: Vec::new() })
    }

    /// Gives the kernel the queues and the tap. After an error `stop` is due.
    pub(super) fn start(&mut self, activation: &Activation, tap: RawFd) -> Result<Watch, NetError> {
        let Activation { memory, queues, interrupt, features } = activation;
        merging(*features)?;
        let watch = Watch::new(interrupt).map_err(|source| NetError::Watch { source })?;
        let kernel = Kernel { fd: &self.fd, memory };
        kernel.set_features(features & FEATURES).map_err(step("VHOST_SET_FEATURES"))?;
        kernel.set_mem_table(&table(memory)).map_err(step("VHOST_SET_MEM_TABLE"))?;
        for queue in queues {
            kernel.set_queue(queue, interrupt, &watch.broken)?;
        }
        for queue in queues {
            kernel.set_backend(queue.index(), tap)?;
            self.running.push(queue.index());
            // What the driver has offered before is looked at without its kick. EAGAIN: one is there.
            let _ = queue.kick().write(1);
        }
        Ok(watch)
    }

    /// When this returns the kernel touches neither the queues nor the interrupt.
    pub(super) fn stop(&mut self) {
        let memory = GuestMemoryMmap::new();
        let kernel = Kernel { fd: &self.fd, memory: &memory };
        for index in self.running.drain(..) {
            if let Err(error) = kernel.set_backend(index, -1) {
                crate::log::limited(&error);
            }
        }
    }
}

/// All of guest memory, with what may be plugged later.
fn table(memory: &Memory) -> Vec<VhostUserMemoryRegionInfo> {
    let entry = |(region, userspace_addr): (crate::memory::Region, u64)| VhostUserMemoryRegionInfo {
        guest_phys_addr: region.guest,
        memory_size: region.size as u64,
        userspace_addr,
        ..Default::default()
    };
    memory.regions().map(entry).collect()
}

/// The descriptor and a view of memory for as long as it is told something.
struct Kernel<'a> {
    fd: &'a OwnedFd,
    memory: &'a GuestMemoryMmap,
}

impl AsRawFd for Kernel<'_> {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}

impl<'a> VhostKernBackend for Kernel<'a> {
    type AS = &'a GuestMemoryMmap;

    fn mem(&self) -> &Self::AS {
        &self.memory
    }
}

impl Kernel<'_> {
    fn set_queue(
        &self,
        queue: &ActiveQueue,
        interrupt: &Interrupt,
        broken: &EventFd,
    ) -> Result<(), NetError> {
        let (index, [desc_table_addr, avail_ring_addr, used_ring_addr]) = (queue.index(), queue.rings());
        let rings = VringConfigData {
            queue_max_size: queue.size(),
            queue_size: queue.size(),
            flags: 0,
            desc_table_addr,
            used_ring_addr,
            avail_ring_addr,
            log_addr: None,
        };
        self.set_vring_num(index, queue.size()).map_err(step("VHOST_SET_VRING_NUM"))?;
        self.set_vring_base(index, queue.taken()).map_err(step("VHOST_SET_VRING_BASE"))?;
        self.set_vring_addr(index, &rings).map_err(step("VHOST_SET_VRING_ADDR"))?;
        self.set_vring_err(index, broken).map_err(step("VHOST_SET_VRING_ERR"))?;
        self.set_vring_call(index, interrupt.irqfd()).map_err(step("VHOST_SET_VRING_CALL"))?;
        self.set_vring_kick(index, queue.kick()).map_err(step("VHOST_SET_VRING_KICK"))
    }

    /// The tap of a queue, or -1 for none: then it rests.
    fn set_backend(&self, queue: usize, tap: RawFd) -> Result<(), NetError> {
        // One of two.
        let file = vhost_vring_file { index: queue as u32, fd: tap };
        // SAFETY: the operation reads one `vhost_vring_file`, and is an error on another kind of descriptor.
        match unsafe { ioctl_with_ref(self, VHOST_NET_SET_BACKEND(), &file) } {
            0 => Ok(()),
            _ => Err(step("VHOST_NET_SET_BACKEND")(vhost::Error::IoctlError(io::Error::last_os_error()))),
        }
    }
}

/// Waits for the kernel to say that the driver broke a ring. The kernel has left that ring alone then.
#[derive(Debug)]
pub(super) struct Watch {
    interrupt: Arc<Interrupt>,
    broken: EventFd,
}

impl Watch {
    fn new(interrupt: &Arc<Interrupt>) -> io::Result<Self> {
        Ok(Self { interrupt: Arc::clone(interrupt), broken: EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC)? })
    }
}

impl Subscriber for Watch {
    fn start(&mut self, registrar: &mut Registrar<'_>) -> io::Result<()> {
        registrar.add(borrow(&self.broken), Token(0), Events::IN)
    }

    fn ready(&mut self, _: Token, _: Events, registrar: &mut Registrar<'_>) {
        // Once is enough, and a guest may go on breaking it.
        if let Err(error) = registrar.remove(borrow(&self.broken)) {
            crate::log::limited(&error);
        }
        self.interrupt.fail();
    }
}
