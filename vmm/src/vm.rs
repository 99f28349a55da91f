//! The KVM side of a machine: the VM, its interrupt controllers, its memory and its event descriptors.
//!
//!   /dev/kvm ─▶ KVM_CREATE_VM ─▶ TSS address ─▶ irqchip ─▶ memory slots          (this order works; others may not)
//!
//! Must be made after the last fork: a VM belongs to the address space that created it. No PIT: guests get the TSC
//! deadline timer.

use std::{io, sync::Arc};

use bulkhead_protocol::vmm::Slot;
use kvm_bindings::kvm_userspace_memory_region;
use kvm_ioctls::{IoEventAddress, Kvm, VmFd};
use virtio_bindings::virtio_mmio::VIRTIO_MMIO_QUEUE_NOTIFY;
use vmm_sys_util::{errno, eventfd::EventFd};

use crate::{
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
    /// `step` names the ioctl.
    #[error("{step}")]
    Step { step: &'static str, source: errno::Error },
}

/// Names the ioctl that failed.
pub(crate) fn step(step: &'static str) -> impl Fn(errno::Error) -> VmError {
    move |source| VmError::Step { step, source }
}

/// A VM without vCPUs. Cheap to share: the descriptor is behind an `Arc`.
#[derive(Debug, Clone)]
pub struct Vm {
    fd: Arc<VmFd>,
}

impl Vm {
    pub fn create(kvm: &Kvm) -> Result<Self, VmError> {
        let found = kvm.get_api_version();
        if found != API_VERSION {
            return Err(VmError::Version { found });
        }
        let fd = kvm.create_vm().map_err(step("KVM_CREATE_VM"))?;
        fd.set_tss_address(TSS_ADDRESS).map_err(step("KVM_SET_TSS_ADDR"))?;
        fd.create_irq_chip().map_err(step("KVM_CREATE_IRQCHIP"))?;
        Ok(Self { fd: Arc::new(fd) })
    }

    /// Gives the guest the memory of its boot. The caller keeps `memory` for as long as a vCPU may run.
    pub fn set_memory(&self, memory: &Memory) -> Result<(), VmError> {
        self.set_regions(memory, memory.boot_regions().len())
    }

    /// Puts the hotplug region, of which the guest has nothing yet, beside it. Done again it changes nothing. Not done
    /// at boot, because KVM's own tables grow with the slots.
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

impl Vm {
    fn add_kick(&self, slot: Slot, queue: u32, kick: &EventFd) -> Result<(), errno::Error> {
        self.fd.register_ioevent(kick, &notify(slot), queue)
    }

    fn remove_kicks(&self, slot: Slot, kicks: &[Arc<EventFd>]) {
        for (queue, kick) in (0_u32..).zip(kicks) {
            // Undoing what may not have been done.
            let _ = self.fd.unregister_ioevent(kick, &notify(slot), queue);
        }
    }
}

impl Wires for Vm {
    fn connect(&self, slot: Slot, interrupt: &Interrupt, kicks: &[Arc<EventFd>]) -> io::Result<()> {
        self.fd.register_irqfd(interrupt.irqfd(), mmio::gsi(slot))?;
        for (queue, kick) in (0_u32..).zip(kicks) {
            if let Err(error) = self.add_kick(slot, queue, kick) {
                self.disconnect(slot, interrupt, kicks);
                return Err(error.into());
            }
        }
        Ok(())
    }

    fn disconnect(&self, slot: Slot, interrupt: &Interrupt, kicks: &[Arc<EventFd>]) {
        self.remove_kicks(slot, kicks);
        let _ = self.fd.unregister_irqfd(interrupt.irqfd(), mmio::gsi(slot));
    }
}

/// The doorbell of a slot: the queue's index is the datum, so each queue has its own eventfd.
fn notify(slot: Slot) -> IoEventAddress {
    IoEventAddress::Mmio(mmio::address(slot) + u64::from(VIRTIO_MMIO_QUEUE_NOTIFY))
}
