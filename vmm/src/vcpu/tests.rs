use kvm_bindings::{CpuId, kvm_cpuid_entry2};

use super::*;

fn supported() -> CpuId {
    let entry = |function, index| kvm_cpuid_entry2 {
        function,
        index,
        eax: 0x77,
        ebx: 0x7700_0877,
        ecx: 0x77,
        edx: 0x1000_0077,
        ..kvm_cpuid_entry2::default()
    };
    CpuId::from_entries(&[
        entry(0, 0),
        entry(1, 0),
        entry(0xb, 0),
        entry(0xb, 1),
        entry(0x8000_0008, 0),
        entry(0x8000_001e, 0),
    ])
    .unwrap()
}

#[test]
fn each_vcpu_has_its_apic_id_in_every_leaf_that_tells_it() {
    let cpuid = cpuid::for_vcpu(&supported(), 3, 4);
    let entry = |function: u32, index: u32| {
        *cpuid.as_slice().iter().find(|entry| (entry.function, entry.index) == (function, index)).unwrap()
    };
    assert_eq!(entry(1, 0).ebx, 0x0304_0877);
    assert_eq!(entry(1, 0).ecx & (1 << 24 | 1 << 31), 1 << 24 | 1 << 31, "TSC deadline and hypervisor");
    assert_eq!(entry(1, 0).edx & 1 << 28, 1 << 28);
    assert_eq!((entry(0xb, 0).edx, entry(0xb, 1).edx), (3, 3));
    assert_eq!(entry(0x8000_0008, 0).ecx, 0x03);
    assert_eq!(entry(0x8000_001e, 0).eax, 3);
    assert_eq!(entry(0, 0), supported().as_slice()[0], "other leaves stay");
}

#[test]
fn a_single_vcpu_is_not_hyper_threaded() {
    let cpuid = cpuid::for_vcpu(&supported(), 0, 1);
    let features = cpuid.as_slice().iter().find(|entry| entry.function == 1).unwrap();
    assert_eq!(features.edx & 1 << 28, 0);
    assert_eq!(features.ebx >> 16, 0x0001);
}
