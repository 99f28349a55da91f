//! What the guest's CPUs say they are: what KVM supports, less what no guest here gets, with the topology of this VM
//! written in.
//!
//!   KVM_GET_SUPPORTED_CPUID ─▶ `HIDDEN` bits and leaves off ─▶ state sizes ─▶ topology of vCPU `id` ─▶ KVM_SET_CPUID2
//!
//! The topology is one package of `count` cores with one thread each; APIC ids are vCPU numbers. KVM's own answer would
//! carry the host's, or none at all (Linux 6.2 and later leave 0xb and 0x1f empty), and the two vendors' leaves must agree.
//!
//! Hidden is what adds attack surface and serves no container: nested virtualisation, the performance counters, and
//! instructions that wait in the host's stead. KVM refuses the registers behind a hidden bit: without SVM a guest's
//! kernel cannot set EFER.SVME, without VMX not CR4.VMXE. AMX is hidden because KVM of Linux 5.17 to 6.3 reports one
//! half of its state without the other, and XSETBV of that half faults; and because its 8 KiB per thread must be asked
//! for by arch_prctl(2), which 5.15 has not.
//!
//! Leaf numbers and bits: Intel SDM volume 2A, CPUID; AMD APM volume 3, appendix E.

use kvm_bindings::{CpuId, KVM_CPUID_FLAG_SIGNIFCANT_INDEX, kvm_cpuid_entry2};
use vmm_sys_util::fam;

const BASIC: u32 = 0;
const FEATURES: u32 = 1;
const INTEL_CACHES: u32 = 4;
const STRUCTURED_FEATURES: u32 = 7;
const INTEL_PMU: u32 = 0xa;
const TOPOLOGY: u32 = 0xb;
const STATE: u32 = 0xd;
const LAST_BRANCH_RECORDS: u32 = 0x1c;
const TILES: u32 = 0x1d;
const TILE_MULTIPLIER: u32 = 0x1e;
const TOPOLOGY_V2: u32 = 0x1f;
const INTEL_PMU_V2: u32 = 0x23;
const EXTENDED_FEATURES: u32 = 0x8000_0001;
const POWER: u32 = 0x8000_0007;
const AMD_SIZES: u32 = 0x8000_0008;
const AMD_SVM: u32 = 0x8000_000a;
const AMD_SAMPLING: u32 = 0x8000_001b;
const AMD_CACHES: u32 = 0x8000_001d;
const AMD_TOPOLOGY: u32 = 0x8000_001e;
const AMD_PMU: u32 = 0x8000_0022;
const AMD_TOPOLOGY_V2: u32 = 0x8000_0026;

/// Leaf 1, ecx.
const TSC_DEADLINE: u32 = 1 << 24;
const HYPERVISOR: u32 = 1 << 31;
/// Leaf 1, edx: ebx[23:16] counts the logical CPUs.
const HYPER_THREADING: u32 = 1 << 28;
/// Leaf 0x80000007, edx: the TSC runs at one rate whatever the CPU does.
const INVARIANT_TSC: u32 = 1 << 8;

#[derive(Debug, Clone, Copy)]
enum Register {
    Eax,
    Ecx,
    Edx,
}

/// Bits that no guest gets: leaf, subleaf, register, bits.
const HIDDEN: &[(u32, u32, Register, u32)] = &[
    // DTES64 (2), VMX (5), PDCM (15)
    (FEATURES, 0, Register::Ecx, 1 << 2 | 1 << 5 | 1 << 15),
    // DS (21)
    (FEATURES, 0, Register::Edx, 1 << 21),
    // WAITPKG (5)
    (STRUCTURED_FEATURES, 0, Register::Ecx, 1 << 5),
    // ARCH_LBR (19), AMX_BF16 (22), AMX_TILE (24), AMX_INT8 (25)
    (STRUCTURED_FEATURES, 0, Register::Edx, 1 << 19 | 1 << 22 | 1 << 24 | 1 << 25),
    // ARCH_PERFMON_EXT (8), AMX_FP16 (21)
    (STRUCTURED_FEATURES, 1, Register::Eax, 1 << 8 | 1 << 21),
    // AMX_COMPLEX (8)
    (STRUCTURED_FEATURES, 1, Register::Edx, 1 << 8),
    // XTILECFG (17), XTILEDATA (18)
    (STATE, 0, Register::Eax, TILE_STATE),
    // XFD (4): it is there to postpone AMX's state.
    (STATE, 1, Register::Eax, 1 << 4),
    // SVM (2), IBS (10), SKINIT (12), PERFCTR_CORE (23), PERFCTR_NB (24), PERFCTR_LLC (28)
    (EXTENDED_FEATURES, 0, Register::Ecx, 1 << 2 | 1 << 10 | 1 << 12 | 1 << 23 | 1 << 24 | 1 << 28),
];
const TILE_STATE: u32 = 1 << 17 | 1 << 18;

/// Leaves that describe only what is hidden, and AMD's newest topology leaf, without which Linux takes the others.
const EMPTIED: &[u32] = &[
    INTEL_PMU,
    LAST_BRANCH_RECORDS,
    TILES,
    TILE_MULTIPLIER,
    INTEL_PMU_V2,
    AMD_SVM,
    AMD_SAMPLING,
    AMD_PMU,
    AMD_TOPOLOGY_V2,
];

/// Which vCPU of which machine.
#[derive(Debug, Clone, Copy)]
pub(super) struct Guest {
    /// Less than `count`.
    pub(super) id: u8,
    /// vCPUs that exist.
    pub(super) count: u8,
    /// The host keeps time by its TSC, so the guest may as well.
    pub(super) stable_tsc: bool,
}

impl Guest {
    /// Bits of an APIC id that tell one core of the package from another.
    fn core_bits(self) -> u32 {
        u32::from(self.count).next_power_of_two().trailing_zeros()
    }

    /// A cache's "shared by how many APIC ids, less one": all for level 3 and beyond, none for the others.
    fn sharing(self, cache: u32) -> u32 {
        let level = cache >> 5 & 7;
        if level >= 3 { (1 << self.core_bits()) - 1 } else { 0 }
    }
}

/// The CPUID of a vCPU, made from what KVM supports.
///
/// # Errors
/// There are more leaves than KVM takes.
pub(super) fn for_vcpu(supported: &CpuId, guest: Guest) -> Result<CpuId, fam::Error> {
    let largest =
        supported.as_slice().iter().find(|entry| entry.function == BASIC).map_or(0, |entry| entry.eax);
    let mut entries: Vec<_> = supported.as_slice().to_vec();
    entries.retain(|entry| !matches!(entry.function, TOPOLOGY | TOPOLOGY_V2));
    for entry in &mut entries {
        hide(entry);
        edit(entry, guest);
    }
    size_state(&mut entries);
    for leaf in [TOPOLOGY, TOPOLOGY_V2].into_iter().filter(|leaf| *leaf <= largest) {
        entries.extend(topology(leaf, guest));
    }
    CpuId::from_entries(&entries)
}

fn hide(entry: &mut kvm_cpuid_entry2) {
    for (_, _, register, bits) in
        HIDDEN.iter().filter(|(leaf, subleaf, ..)| (*leaf, *subleaf) == (entry.function, entry.index))
    {
        match register {
            Register::Eax => entry.eax &= !bits,
            Register::Ecx => entry.ecx &= !bits,
            Register::Edx => entry.edx &= !bits,
        }
    }
    let tile_state = entry.function == STATE && matches!(entry.index, 17 | 18);
    if tile_state || EMPTIED.contains(&entry.function) {
        (entry.eax, entry.ebx, entry.ecx, entry.edx) = (0, 0, 0, 0);
    }
}

fn edit(entry: &mut kvm_cpuid_entry2, guest: Guest) {
    let (id, count) = (u32::from(guest.id), u32::from(guest.count));
    match entry.function {
        FEATURES => {
            // KVM has this timer, or `capabilities` would have refused the host; the answer to
            // KVM_GET_SUPPORTED_CPUID leaves it out.
            entry.ecx |= TSC_DEADLINE | HYPERVISOR;
            entry.ebx = entry.ebx & 0xffff | count << 16 | id << 24;
            if count > 1 {
                entry.edx |= HYPER_THREADING;
            } else {
                entry.edx &= !HYPER_THREADING;
            }
        }
        // Bits 4 to 0 are the cache's type; none is the end of the list.
        INTEL_CACHES if entry.eax & 0x1f != 0 => {
            let cores = (1 << guest.core_bits()) - 1;
            entry.eax = entry.eax & 0x3fff | guest.sharing(entry.eax) << 14 | cores << 26;
        }
        AMD_CACHES if entry.eax & 0x1f != 0 => {
            entry.eax = entry.eax & 0x3fff | guest.sharing(entry.eax) << 14;
        }
        POWER if !guest.stable_tsc => entry.edx &= !INVARIANT_TSC,
        // ecx[15:12]: bits of the core's number in an APIC id; ecx[7:0]: cores, less one.
        AMD_SIZES => entry.ecx = entry.ecx & !0xf0ff | guest.core_bits() << 12 | count.saturating_sub(1),
        // The core's number, with one thread; one node of one.
        AMD_TOPOLOGY => (entry.eax, entry.ebx, entry.ecx) = (id, id, 0),
        _ => {}
    }
}

/// Leaf 0xd, subleaf 0, ecx: the bytes that all of the state takes which the guest may enable. What the enabled part
/// takes (ebx, and that of subleaf 1), KVM keeps up to date itself.
fn size_state(entries: &mut [kvm_cpuid_entry2]) {
    /// The x87 and SSE state and the header: in every area.
    const LEAST: u32 = 576;
    let state = |entry: &&kvm_cpuid_entry2| entry.function == STATE;
    let Some(components) = entries.iter().filter(state).find(|entry| entry.index == 0) else { return };
    let allowed = u64::from(components.edx) << 32 | u64::from(components.eax);
    let ends = entries.iter().filter(state).filter(|entry| (2..64).contains(&entry.index));
    let ends = ends.filter(|entry| allowed >> entry.index & 1 != 0);
    let size = ends.map(|entry| entry.ebx.saturating_add(entry.eax)).fold(LEAST, u32::max);
    for entry in entries.iter_mut().filter(|entry| entry.function == STATE && entry.index == 0) {
        entry.ecx = size;
    }
}

/// One thread in a core, `count` cores in the package. KVM answers the levels above by itself.
fn topology(leaf: u32, guest: Guest) -> [kvm_cpuid_entry2; 2] {
    const THREADS: u32 = 1 << 8;
    const CORES: u32 = 2 << 8;
    let level = |index, eax, ebx, kind| kvm_cpuid_entry2 {
        function: leaf,
        index,
        flags: KVM_CPUID_FLAG_SIGNIFCANT_INDEX,
        eax,
        ebx,
        ecx: kind | index,
        edx: guest.id.into(),
        ..kvm_cpuid_entry2::default()
    };
    [level(0, 0, 1, THREADS), level(1, guest.core_bits(), guest.count.into(), CORES)]
}

#[cfg(test)]
mod tests;
