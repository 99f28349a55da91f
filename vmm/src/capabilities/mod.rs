//! What this VMM asks of KVM: one list, which a boot and the probe of `bulkhead doctor` go through alike.
//!
//!   /dev/kvm ─KVM_CHECK_EXTENSION─▶ `check`: all that is required and missing, by name and use
//!   VM       ─KVM_CHECK_EXTENSION─▶ `harden`: limits on the guest that not every host has, turned on where it has them
//!
//! Sources: Documentation/virt/kvm/api.rst of Linux.

use std::{fmt, os::raw::c_ulong};

use bulkhead_protocol::limits;
use kvm_bindings::*;
use kvm_ioctls::{Kvm, VmFd};
use vmm_sys_util::errno;

/// One extension of KVM.
#[derive(Debug, PartialEq, Eq)]
pub struct Capability {
    /// As in linux/kvm.h.
    pub name: &'static str,
    number: u32,
    /// What KVM_CHECK_EXTENSION must answer at least.
    least: i32,
    /// What it is needed for.
    pub purpose: &'static str,
}

/// Without one of these no guest boots, or one would that does not work.
pub const REQUIRED: &[Capability] = &[
    required("KVM_CAP_USER_MEMORY", KVM_CAP_USER_MEMORY, "guest memory"),
    required("KVM_CAP_SYNC_MMU", KVM_CAP_SYNC_MMU, "memory that the guest gives back"),
    Capability {
        name: "KVM_CAP_NR_MEMSLOTS",
        number: KVM_CAP_NR_MEMSLOTS,
        // Below the hole, above it, and what is plugged.
        least: 3,
        purpose: "three regions of guest memory",
    },
    required("KVM_CAP_SET_TSS_ADDR", KVM_CAP_SET_TSS_ADDR, "real mode on Intel processors"),
    required("KVM_CAP_IRQCHIP", KVM_CAP_IRQCHIP, "interrupt controllers in the kernel"),
    required("KVM_CAP_IRQFD", KVM_CAP_IRQFD, "interrupts of devices"),
    required("KVM_CAP_IOEVENTFD", KVM_CAP_IOEVENTFD, "doorbells of devices"),
    required("KVM_CAP_EXT_CPUID", KVM_CAP_EXT_CPUID, "what the guest's CPUs say they are"),
    required("KVM_CAP_TSC_DEADLINE_TIMER", KVM_CAP_TSC_DEADLINE_TIMER, "the guest's only timer"),
    Capability {
        name: "KVM_CAP_MAX_VCPUS",
        number: KVM_CAP_MAX_VCPUS,
        least: limits::VCPUS as i32,
        purpose: "as many vCPUs as a machine may have",
    },
];

const fn required(name: &'static str, number: u32, purpose: &'static str) -> Capability {
    Capability { name, number, least: 1, purpose }
}

/// Required capabilities that a KVM has not; at least one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct Lacking(Vec<&'static Capability>);

impl fmt::Display for Lacking {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("this KVM lacks ")?;
        for (index, capability) in self.0.iter().enumerate() {
            let comma = if index == 0 { "" } else { ", " };
            write!(f, "{comma}{} ({})", capability.name, capability.purpose)?;
        }
        Ok(())
    }
}

/// # Errors
/// Something of `REQUIRED` is missing; all of it is named.
pub fn check(kvm: &Kvm) -> Result<(), Lacking> {
    lacking(|number| kvm.check_extension_raw(c_ulong::from(number)))
}

/// `extension` answers as KVM_CHECK_EXTENSION: 0 or less for what is not there.
fn lacking(extension: impl Fn(u32) -> i32) -> Result<(), Lacking> {
    let missing = REQUIRED.iter().filter(|capability| extension(capability.number) < capability.least);
    let missing: Vec<_> = missing.collect();
    if missing.is_empty() { Ok(()) } else { Err(Lacking(missing)) }
}

/// A limit on what a guest can do to its host.
struct Limit {
    step: &'static str,
    number: u32,
    /// What must be in the answer of KVM_CHECK_EXTENSION, and goes into the first argument.
    offered: i32,
    argument: u64,
}

const LIMITS: &[Limit] = &[
    // No performance counters, also where no CPUID bit stands before them (the K7 ones of AMD). Linux 5.18.
    Limit {
        step: "KVM_ENABLE_CAP (KVM_CAP_PMU_CAPABILITY)",
        number: KVM_CAP_PMU_CAPABILITY,
        offered: KVM_PMU_CAP_DISABLE as i32,
        argument: KVM_PMU_CAP_DISABLE as u64,
    },
    // A locked access across two cache lines stops all CPUs of the host for a moment; each ends in an exit, which costs
    // the guest a pause (`vcpu`). Linux 5.12, and processors that tell.
    Limit {
        step: "KVM_ENABLE_CAP (KVM_CAP_X86_BUS_LOCK_EXIT)",
        number: KVM_CAP_X86_BUS_LOCK_EXIT,
        offered: KVM_BUS_LOCK_DETECTION_EXIT as i32,
        argument: KVM_BUS_LOCK_DETECTION_EXIT as u64,
    },
    // A guest that keeps the processor from taking interrupts (an endless exception within microcode) is stopped after
    // the processor's own window. KVM goes on with it; only a guest whose state is lost ends. Linux 6.0, Intel.
    Limit {
        step: "KVM_ENABLE_CAP (KVM_CAP_X86_NOTIFY_VMEXIT)",
        number: KVM_CAP_X86_NOTIFY_VMEXIT,
        offered: 1,
        argument: KVM_X86_NOTIFY_VMEXIT_ENABLED as u64,
    },
];

/// A limit that the host offers, and could not turn on.
#[derive(Debug, thiserror::Error)]
#[error("{step}")]
pub struct HardenError {
    step: &'static str,
    source: errno::Error,
}

/// Turns on every limit that the host has. Before the first vCPU: KVM refuses it later.
///
/// # Errors
/// KVM refuses a limit that it offers.
pub(crate) fn harden(vm: &VmFd) -> Result<(), HardenError> {
    for limit in LIMITS {
        let answer = vm.check_extension_raw(c_ulong::from(limit.number));
        if answer > 0 && answer & limit.offered != 0 {
            let cap = kvm_enable_cap {
                cap: limit.number,
                args: [limit.argument, 0, 0, 0],
                ..kvm_enable_cap::default()
            };
            vm.enable_cap(&cap).map_err(|source| HardenError { step: limit.step, source })?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
