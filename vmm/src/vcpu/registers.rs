//! The state in which each vCPU starts: the PVH entry for the first, KVM's own reset state for the others.
//!
//! PVH enters in 32-bit protected mode with paging off and flat segments; the kernel brings its own GDT and page
//! tables, so none are made. What is "for Intel" was found unnecessary on AMD and is cheap.

use kvm_bindings::{Msrs, kvm_lapic_state, kvm_msr_entry, kvm_regs, kvm_segment, kvm_sregs};
use kvm_ioctls::VcpuFd;

use crate::{
    boot::Entry,
    vm::{VmError, step, too_many},
};

const CR0_PROTECTED: u64 = 1;
const CODE: u8 = 0xb;
const DATA: u8 = 0x3;
/// The bit of rflags that is always set.
const RFLAGS: u64 = 2;

const MSR_MISC_ENABLE: u32 = 0x1a0;
const FAST_STRINGS: u64 = 1;
const MSR_MTRR_DEFAULT_TYPE: u32 = 0x2ff;
/// Enabled (bit 11), write-back (6) where no range says otherwise. The ranges below 1 MiB stay disabled: all of them are
/// uncached after a reset.
const MTRR_ENABLED_WRITE_BACK: u64 = 0x806;

/// Offsets of the local interrupt pins in the APIC's registers, and the delivery modes they get.
const LAPIC_LVT0: usize = 0x350;
const LAPIC_LVT1: usize = 0x360;
const DELIVERY_MASK: u32 = 0x700;
const DELIVERY_NMI: u32 = 0x400;
const DELIVERY_EXT_INT: u32 = 0x700;

/// How a vCPU begins. A vCPU of a restored snapshot will be one more case, which sets none of the reset state below.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Begin {
    /// At the entry of a kernel.
    Boot(Entry),
    /// As after a reset: it waits for INIT and SIPI of another vCPU.
    Wait,
}

impl Begin {
    /// The vCPUs of a machine that boots: the first at the kernel's entry, the others wait for it.
    pub fn booting(entry: Entry, count: u8) -> Vec<Self> {
        let others = (1..count).map(|_| Self::Wait);
        std::iter::once(Self::Boot(entry)).chain(others).collect()
    }
}

/// Brings a fresh vCPU, whose CPUID is set, to where it begins.
pub(super) fn set(vcpu: &VcpuFd, begin: Begin) -> Result<(), VmError> {
    match begin {
        Begin::Boot(entry) => set_entry(vcpu, entry)?,
        Begin::Wait => {}
    }
    set_msrs(vcpu)?;
    set_local_interrupts(vcpu)
}

fn set_entry(vcpu: &VcpuFd, entry: Entry) -> Result<(), VmError> {
    let mut sregs = vcpu.get_sregs().map_err(step("KVM_GET_SREGS"))?;
    enter_protected_mode(&mut sregs);
    vcpu.set_sregs(&sregs).map_err(step("KVM_SET_SREGS"))?;
    let regs =
        kvm_regs { rip: entry.instruction, rbx: entry.start_info, rflags: RFLAGS, ..kvm_regs::default() };
    vcpu.set_regs(&regs).map_err(step("KVM_SET_REGS"))
}

fn enter_protected_mode(sregs: &mut kvm_sregs) {
    sregs.cr0 = CR0_PROTECTED;
    sregs.cr4 = 0;
    sregs.efer = 0;
    sregs.cs = flat(CODE, 0x8);
    let data = flat(DATA, 0x10);
    (sregs.ds, sregs.es, sregs.fs, sregs.gs, sregs.ss) = (data, data, data, data, data);
    sregs.tr = kvm_segment { type_: CODE, limit: 0x67, selector: 0x18, present: 1, ..kvm_segment::default() };
}

/// A segment of 4 GiB from 0.
fn flat(type_: u8, selector: u16) -> kvm_segment {
    kvm_segment {
        base: 0,
        limit: 0xffff_ffff,
        selector,
        type_,
        present: 1,
        db: 1,
        s: 1,
        g: 1,
        ..kvm_segment::default()
    }
}

fn set_msrs(vcpu: &VcpuFd) -> Result<(), VmError> {
    let entry = |index, data| kvm_msr_entry { index, data, ..kvm_msr_entry::default() };
    let msrs = [entry(MSR_MISC_ENABLE, FAST_STRINGS), entry(MSR_MTRR_DEFAULT_TYPE, MTRR_ENABLED_WRITE_BACK)];
    let msrs = Msrs::from_entries(&msrs).map_err(|_| too_many("prepare KVM_SET_MSRS"))?;
    let set = vcpu.set_msrs(&msrs).map_err(step("KVM_SET_MSRS"))?;
    if set < msrs.as_slice().len() {
        return Err(VmError::Step { step: "KVM_SET_MSRS (one was refused)", source: errno(libc::EINVAL) });
    }
    Ok(())
}

fn set_local_interrupts(vcpu: &VcpuFd) -> Result<(), VmError> {
    let mut lapic = vcpu.get_lapic().map_err(step("KVM_GET_LAPIC"))?;
    set_delivery(&mut lapic, LAPIC_LVT0, DELIVERY_EXT_INT);
    set_delivery(&mut lapic, LAPIC_LVT1, DELIVERY_NMI);
    vcpu.set_lapic(&lapic).map_err(step("KVM_SET_LAPIC"))
}

fn set_delivery(lapic: &mut kvm_lapic_state, offset: usize, mode: u32) {
    let Some(register) = lapic.regs.get_mut(offset..offset + 4) else { return };
    let mut value = 0;
    for (index, byte) in register.iter().enumerate() {
        value |= u32::from(*byte as u8) << (8 * index);
    }
    let value = value & !DELIVERY_MASK | mode;
    for (to, from) in register.iter_mut().zip(value.to_le_bytes()) {
        *to = from as _;
    }
}

fn errno(number: i32) -> vmm_sys_util::errno::Error {
    vmm_sys_util::errno::Error::new(number)
}
