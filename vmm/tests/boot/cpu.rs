//! The tests of the guest's CPUs: what a Linux guest makes of their CPUID, what a hostile guest's kernel can not turn on,
//! and what is known of a vCPU at its end.

use bulkhead_protocol::vmm::{Device, GuestExit, Reply, Request, Slot};

use crate::host::{Vmm, boot, elf, spec};

macro_rules! tests {
    ($($name:ident),* $(,)?) => { pub(crate) const ALL: &[(&str, fn())] = &[$((stringify!($name), $name)),*]; };
}

tests![
    linux_finds_one_package_of_cores_with_one_thread_each,
    linux_finds_nothing_of_nested_virtualisation_or_performance_counters,
    a_guest_relies_on_the_tsc_only_where_the_host_does,
    a_guest_cannot_turn_on_nested_virtualisation,
    a_write_to_the_reset_control_register_is_a_reset,
    a_triple_fault_is_told_apart_from_a_reset_with_what_led_to_it,
    a_nudge_reaches_the_drivers_of_all_devices,
];

fn linux_finds_one_package_of_cores_with_one_thread_each() {
    for count in [1_u8, 2, 4] {
        let mut machine = spec("cpu");
        (machine.vcpus, machine.max_vcpus) = (count, count);
        let mut vmm = boot(&machine).unwrap();
        let all = if count == 1 { "0".to_owned() } else { format!("0-{}", count - 1) };
        for cpu in 0..count {
            let topology = vmm.hear("topology");
            assert_eq!(topology, format!("package 0 core {cpu} threads {cpu} package's {all}"));
            let caches = vmm.hear("caches");
            println!("  vCPU {cpu} of {count}: {topology}, caches {caches}");
            // Two first-level caches and one second-level are the core's own, the third level is everybody's. A host
            // may tell of fewer, or of none.
            let shared: Vec<_> = caches.split_whitespace().collect();
            let own = cpu.to_string();
            assert!(shared.iter().take(3).all(|list| *list == own), "{caches}");
            assert!(shared.iter().skip(3).all(|list| *list == all), "{caches}");
        }
        assert_eq!(vmm.hear("tainted"), "0");
        assert_eq!(vmm.exit().0, GuestExit::Reset);
    }
}

fn linux_finds_nothing_of_nested_virtualisation_or_performance_counters() {
    let mut vmm = boot(&spec("cpu")).unwrap();
    let flags = vmm.hear("flags");
    assert!(flags.ends_with(" end"), "{flags}");
    let flags: Vec<_> = flags.split(' ').collect();
    let hidden = [
        "svm",
        "vmx",
        "waitpkg",
        "arch_perfmon",
        "pdcm",
        "perfctr_core",
        "amx_tile",
        "amx_bf16",
        "amx_int8",
        "nested_vmexit",
        "npt",
        "skinit",
    ];
    for flag in hidden {
        assert!(!flags.contains(&flag), "{flag} shows");
    }
    for flag in ["hypervisor", "tsc_deadline_timer", "x2apic", "cx16"] {
        assert!(flags.contains(&flag), "{flag} does not show");
    }
    assert_eq!(vmm.exit().0, GuestExit::Reset);
}

fn a_guest_relies_on_the_tsc_only_where_the_host_does() {
    for stable_tsc in [true, false] {
        let mut machine = spec("cpu");
        machine.stable_tsc = stable_tsc;
        let mut vmm = boot(&machine).unwrap();
        let flags = vmm.hear("flags");
        let options = vmm.hear("cmdline");
        assert_eq!(options.contains("tsc=reliable"), stable_tsc, "{options}");
        // The host may have none to begin with.
        assert!(stable_tsc || !flags.contains("nonstop_tsc"), "{flags}");
        assert_eq!(vmm.exit().0, GuestExit::Reset);
    }
}

/// Boots a program of 32-bit code instead of a kernel.
fn run(program: &[u8]) -> Vmm {
    let mut machine = spec("none");
    machine.kernel = elf(0x10_0000, program);
    boot(&machine).unwrap()
}

const RESET: [u8; 7] = [
    0x66, 0xba, 0xf9, 0x0c, // mov dx, 0xcf9
    0xb0, 0x06, // mov al, 6
    0xee, // out dx, al
];

fn a_write_to_the_reset_control_register_is_a_reset() {
    assert_eq!(run(&RESET).exit().0, GuestExit::Reset);
}

/// EFER.SVME of AMD and CR4.VMXE of Intel. Where KVM lets it through the program ends with a reset instead.
fn a_guest_cannot_turn_on_nested_virtualisation() {
    let svm = [
        0xb9, 0x80, 0x00, 0x00, 0xc0, // mov ecx, EFER
        0x0f, 0x32, // rdmsr
        0x0d, 0x00, 0x10, 0x00, 0x00, // or eax, SVME
        0x0f, 0x30, // wrmsr: #GP without a handler
    ];
    let vmx = [
        0x0f, 0x20, 0xe0, // mov eax, cr4
        0x0d, 0x00, 0x20, 0x00, 0x00, // or eax, VMXE
        0x0f, 0x22, 0xe0, // mov cr4, eax: #GP without a handler
    ];
    for program in [svm.as_slice(), vmx.as_slice()] {
        let reason = run(&[program, &RESET].concat()).exit().0;
        assert!(matches!(reason, GuestExit::TripleFault(_)), "{reason:?}");
    }
}

fn a_triple_fault_is_told_apart_from_a_reset_with_what_led_to_it() {
    let program = [
        0xb0, 0x2a, // mov al, 0x2a
        0xe6, 0x80, // out 0x80, al
        0x0f, 0x0b, // ud2 without a handler
    ];
    let (reason, _) = run(&program).exit();
    println!("  {reason}");
    let GuestExit::TripleFault(detail) = &reason else { panic!("{reason:?}") };
    let detail = detail.as_ref();
    assert!(detail.starts_with("vCPU 0: "), "{detail}");
    // kvm-amd has reset the registers before anybody can look at them.
    assert!(detail.contains(" rip=0x100004 ") || detail.contains("registers lost"), "{detail}");
    let trail = detail.split_once("last exits: ").unwrap().1;
    assert!(trail.contains("port write 0x80 "), "{detail}");
}

/// What the server asks for after the set of online vCPUs has changed.
fn a_nudge_reaches_the_drivers_of_all_devices() {
    let mut machine = spec("idle");
    machine.devices = vec![(Slot(3), Device::Rng), (Slot(4), Device::Balloon)];
    let mut vmm = boot(&machine).unwrap();
    vmm.hear("idle");
    let interrupts = |vmm: &mut Vmm| -> Vec<(String, u64)> {
        vmm.metrics().into_iter().filter(|(name, _)| name.ends_with(".interrupts")).collect()
    };
    let before = interrupts(&mut vmm);
    assert_eq!(vmm.ask(&Request::Nudge, &[]), Ok(Reply::Done));
    let after = interrupts(&mut vmm);
    assert_eq!(before.len(), 3);
    assert!(before.iter().zip(&after).all(|(before, after)| after.1 > before.1), "{before:?} {after:?}");
    assert_eq!(vmm.ask(&Request::Stop, &[]), Ok(Reply::Done));
    assert_eq!(vmm.exit().0, GuestExit::Stopped);
}
