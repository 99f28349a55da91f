use super::{
    super::{Verdict, tests::root},
    *,
};

#[test]
fn threads_that_share_a_core_are_a_warning() {
    let active = "sys/devices/system/cpu/smt/active";
    assert_eq!(smt(root(&[(active, "1\n")]).path()).verdict, Verdict::Warn);
    assert_eq!(smt(root(&[(active, "0\n")]).path()).verdict, Verdict::Ok);
    assert_eq!(smt(root(&[]).path()).verdict, Verdict::Ok);
}

#[test]
fn every_vulnerability_that_the_kernel_calls_open_is_named() {
    let name = |file| format!("{VULNERABILITIES}/{file}");
    let (meltdown, mds, itlb, l1tf) = (name("meltdown"), name("mds"), name("itlb_multihit"), name("l1tf"));
    let fine = root(&[(&meltdown, "Mitigation: PTI\n"), (&mds, "Not affected\n")]);
    assert_eq!(vulnerabilities(fine.path()).verdict, Verdict::Ok);
    let open = root(&[
        (&meltdown, "Mitigation: PTI\n"),
        (&mds, "Vulnerable: Clear CPU buffers attempted, no microcode\n"),
        (&itlb, "KVM: Vulnerable\n"),
        (&l1tf, "Mitigation: PTE Inversion; VMX: cache flushes, SMT vulnerable\n"),
    ]);
    let finding = vulnerabilities(open.path());
    assert_eq!(finding.verdict, Verdict::Warn);
    assert_eq!(
        finding.detail,
        "itlb_multihit: KVM: Vulnerable | l1tf: Mitigation: PTE Inversion; VMX: cache flushes, SMT vulnerable \
         | mds: Vulnerable: Clear CPU buffers attempted, no microcode"
    );
    assert_eq!(vulnerabilities(root(&[]).path()).verdict, Verdict::Ok);
}

#[test]
fn swap_that_reaches_a_disk_is_a_warning() {
    let head = "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n";
    let with = |areas: &str| swap(root(&[("proc/swaps", &format!("{head}{areas}"))]).path());
    assert_eq!(with("").verdict, Verdict::Ok);
    assert_eq!(with("/dev/zram0 partition 1 0 100\n").verdict, Verdict::Ok);
    let finding = with("/dev/zram0 partition 1 0 100\n/dev/sda2 partition 1 0 -2\n");
    assert_eq!(finding.verdict, Verdict::Warn);
    assert!(finding.detail.contains("written to /dev/sda2 and stay"), "{}", finding.detail);
}

#[test]
fn what_the_host_offers_other_guests_is_told() {
    let nested_on = root(&[("sys/module/kvm_amd/parameters/nested", "1\n")]);
    assert!(nested(nested_on.path()).detail.starts_with("kvm_amd allows it"));
    let nested_off = root(&[("sys/module/kvm_intel/parameters/nested", "N\n")]);
    assert_eq!(nested(nested_off.path()).detail, "off in kvm_intel");
    let ksm = root(&[("sys/kernel/mm/ksm/run", "1\n")]);
    assert!(same_page_merging(ksm.path()).detail.starts_with("KSM is on"));
    let microcode_known = root(&[("sys/devices/system/cpu/cpu0/microcode/version", "0x2b000639\n")]);
    assert!(microcode(microcode_known.path()).detail.starts_with("revision 0x2b000639"));
}

#[test]
fn a_clock_that_is_not_the_tsc_is_a_warning() {
    let current = "sys/devices/system/clocksource/clocksource0/current_clocksource";
    assert_eq!(clock(root(&[(current, "tsc\n")]).path()).verdict, Verdict::Ok);
    let hpet = clock(root(&[(current, "hpet\n")]).path());
    assert_eq!(hpet.verdict, Verdict::Warn);
    assert!(hpet.detail.contains("by hpet"));
}
