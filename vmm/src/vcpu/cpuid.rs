//! What the guest's CPUs say they are: what KVM supports, with the topology of this VM written in.
//!
//! KVM_GET_SUPPORTED_CPUID leaves out the TSC deadline timer, which KVM's APIC has; without it and without a PIT a
//! guest has no timer at all. It also carries the APIC ids of the host CPU that answered.

use kvm_bindings::{CpuId, kvm_cpuid_entry2};

const FEATURES: u32 = 1;
const EXTENDED_TOPOLOGY: u32 = 0xb;
const EXTENDED_TOPOLOGY_V2: u32 = 0x1f;
const AMD_SIZES: u32 = 0x8000_0008;
const AMD_TOPOLOGY: u32 = 0x8000_001e;

/// Leaf 1, ecx.
const TSC_DEADLINE: u32 = 1 << 24;
const HYPERVISOR: u32 = 1 << 31;
/// Leaf 1, edx: ebx[23:16] counts the logical CPUs.
const HYPER_THREADING: u32 = 1 << 28;

/// The CPUID of vCPU `id` of `count`, made from what KVM supports.
pub(super) fn for_vcpu(supported: &CpuId, id: u8, count: u8) -> CpuId {
    let mut cpuid = supported.clone();
    for entry in cpuid.as_mut_slice() {
        edit(entry, id, count);
    }
    cpuid
}

fn edit(entry: &mut kvm_cpuid_entry2, id: u8, count: u8) {
    match entry.function {
        FEATURES => {
            entry.ecx |= TSC_DEADLINE | HYPERVISOR;
            entry.ebx = entry.ebx & 0xffff | u32::from(count) << 16 | u32::from(id) << 24;
            if count > 1 {
                entry.edx |= HYPER_THREADING;
            } else {
                entry.edx &= !HYPER_THREADING;
            }
        }
        EXTENDED_TOPOLOGY | EXTENDED_TOPOLOGY_V2 => entry.edx = u32::from(id),
        AMD_SIZES => entry.ecx = entry.ecx & !0xff | u32::from(count.saturating_sub(1)),
        AMD_TOPOLOGY => entry.eax = u32::from(id),
        _ => {}
    }
}
