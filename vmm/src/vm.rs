//! The KVM side of a machine: the VM, its interrupt controllers, its memory and its event descriptors.
//!
//!   /dev/kvm ─▶ KVM_CHECK_EXTENSION ─▶ KVM_CREATE_VM ─▶ TSS address ─▶ irqchip ─▶ limits ─▶ memory slots
//!                                                                      (this order works; others may not)
//!
//! Must be made after the last fork: a VM belongs to the address space that created it. No PIT: guests get the TSC
//! deadline timer.

use std::{io, sync::Arc};

use bulkhead_protocol::vmm::Slot;
use kvm_bindings::kvm_userspace_memory_region;
use kvm_ioctls::{IoEventAddress, Kvm, VmFd};
use virtio_bindings::virtio_mmio::{
    VIRTIO_MMIO_INT_VRING, VIRTIO_MMIO_INTERRUPT_ACK, VIRTIO_MMIO_QUEUE_NOTIFY,
};
use vmm_sys_util::{errno, eventfd::EventFd};

use crate::{
    capabilities::{self, HardenError, Lacking},
    devices::{
        interrupt::Interrupt,
        mmio::{self, Wires},
    },
    memory::Memory,
};

/// Three pages that Intel's virtual 8086 mode needs, in the hole above the slots. AMD ignores it.
const TSS_ADDRESS: usize = 0xfffb_d000;
const API_VERSION: i32 = 12;

#[derive(Debug, thiserror::Error)]
pub enum VmError {
    #[error("KVM speaks API version {found}, not {API_VERSION}")]
    Version { found: i32 },
    #[error(transparent)]
    Lacking(#[from] Lacking),
    #[error(transparent)]
    Harden(#[from] HardenError),
    /// `step` names the ioctl.
    #[error("{step}")]
    Step { step: &'static str, source: errno::Error },
}

/// Names the ioctl that failed.
pub(crate) fn step(step: &'static str) -> impl Fn(errno::Error) -> VmError {
    move |source| VmError::Step { step, source }
}

/// A list that is longer than KVM takes.
pub(crate) fn too_many(step: &'static str) -> VmError {
    VmError::Step { step, source: errno::Error::new(libc::E2BIG) }
}

/// A VM without vCPUs. Cheap to share: the descriptor is behind an `Arc`.
#[derive(Debug, Clone)]
pub struct Vm {
    fd: Arc<VmFd>,
}

impl Vm {
    /// Makes a VM with interrupt controllers and the limits that the host has.
    ///
    /// # Errors
    /// KVM lacks something that is required, or refuses a step.
    pub fn create(kvm: &Kvm) -> Result<Self, VmError> {
        let found = kvm.get_api_version();
        if found != API_VERSION {
            return Err(VmError::Version { found });
        }
        capabilities::check(kvm)?;
        let fd = kvm.create_vm().map_err(step("KVM_CREATE_VM"))?;
        fd.set_tss_address(TSS_ADDRESS).map_err(step("KVM_SET_TSS_ADDR"))?;
        fd.create_irq_chip().map_err(step("KVM_CREATE_IRQCHIP"))?;
        capabilities::harden(&fd)?;
        Ok(Self { fd: Arc::new(fd) })
    }

    /// Gives the guest the memory of its boot. The caller keeps `memory` for as long as a vCPU may run.
    ///
    /// # Errors
    /// KVM refuses a region.
    pub fn set_memory(&self, memory: &Memory) -> Result<(), VmError> {
        self.set_regions(memory, memory.boot_regions().len())
    }

    /// Puts the hotplug region, of which the guest has nothing yet, beside it. Done again it changes nothing. Not done
    /// at boot, because KVM's own tables grow with the slots.
    ///
    /// # Errors
    /// KVM refuses a region.
    pub fn add_hotplug(&self, memory: &Memory) -> Result<(), VmError> {
        self.set_regions(memory, usize::MAX)
    }

    fn set_regions(&self, memory: &Memory, count: usize) -> Result<(), VmError> {
        for (slot, (region, userspace_addr)) in (0..).zip(memory.regions()).take(count) {
            let region = kvm_userspace_memory_region {
                slot,
                flags: 0,
                guest_phys_addr: region.guest,
                memory_size: region.size as u64,
                userspace_addr,
            };
            // SAFETY: the range is a part of the mapping of `memory`, which stays mapped and is accessed by this
            // process only through volatile accesses; the guest cannot reach beyond it.
            unsafe { self.fd.set_user_memory_region(region) }.map_err(step("KVM_SET_USER_MEMORY_REGION"))?;
        }
        Ok(())
    }

    pub(crate) fn fd(&self) -> &VmFd {
        &self.fd
    }
}

/// What a driver writes without an exit to this process: address, value, and the eventfd that hears of it.
fn writes<'a>(
    slot: Slot,
    interrupt: &'a Interrupt,
    kicks: &'a [Arc<EventFd>],
) -> impl Iterator<Item = (IoEventAddress, u32, &'a EventFd)> {
    let register = move |offset| IoEventAddress::Mmio(mmio::address(slot) + u64::from(offset));
    // The doorbell: the queue's index is the datum, so each queue has its own eventfd.
    let kicks = (0..).zip(kicks);
    let kicks = kicks.map(move |(queue, kick)| (register(VIRTIO_MMIO_QUEUE_NOTIFY), queue, &**kick));
    let acknowledgements = interrupt.acknowledgements();
    kicks.chain([(register(VIRTIO_MMIO_INTERRUPT_ACK), VIRTIO_MMIO_INT_VRING, acknowledgements)])
}

impl Wires for Vm {
    fn connect(&self, slot: Slot, interrupt: &Interrupt, kicks: &[Arc<EventFd>]) -> io::Result<()> {
        self.fd.register_irqfd(interrupt.irqfd(), mmio::gsi(slot))?;
        for (address, value, event) in writes(slot, interrupt, kicks) {
            if let Err(error) = self.fd.register_ioevent(event, &address, value) {
                self.disconnect(slot, interrupt, kicks);
                return Err(error.into());
            }
        }
        Ok(())
    }

    fn disconnect(&self, slot: Slot, interrupt: &Interrupt, kicks: &[Arc<EventFd>]) {
        for (address, value, event) in writes(slot, interrupt, kicks) {
            // Undoing what may not have been done.
            let _ = self.fd.unregister_ioevent(event, &address, value);
        }
        let _ = self.fd.unregister_irqfd(interrupt.irqfd(), mmio::gsi(slot));
    }
}
