use super::*;

#[test]
fn the_trail_keeps_the_last_exits_latest_first() {
    let mut trail = Trail::new();
    assert_eq!(trail.to_string(), "last exits: none");
    for port in 1..=(KEPT as u64 + 3) {
        trail.add(ExitKind::PortWrite, port, Some(0x1000 + port));
    }
    let places: Vec<_> = trail.latest().map(|exit| exit.place).collect();
    assert_eq!(places, (4..=KEPT as u64 + 3).rev().collect::<Vec<_>>());
    trail.add(ExitKind::Interrupted, 0, None);
    let text = trail.to_string();
    assert!(text.starts_with("last exits: interrupted "), "{text}");
    assert!(text.contains(" ago, port write 0x9 at 0x1009 "), "{text}");
}

#[test]
fn registers_and_a_pending_exception_are_told() {
    let regs = kvm_regs { rip: 0xffff_ffff_8100_0000, rsp: 0x10, rflags: 2, ..kvm_regs::default() };
    let mut sregs = kvm_sregs { cr2: 0xdead, cr3: 0x2000, efer: 0xd01, ..kvm_sregs::default() };
    (sregs.idt.base, sregs.idt.limit) = (0xfffe_0000, 0xfff);
    let mut events = kvm_vcpu_events::default();
    events.exception.injected = 1;
    events.exception.nr = 8;
    let text = registers(&regs, &sregs, Some(&events));
    for part in [
        "rip=0xffffffff81000000 rsp=0x10",
        "cr2=0xdead cr3=0x2000",
        "efer=0xd01",
        "idt=0xfffe0000+0xfff",
        "exception=8",
    ] {
        assert!(text.contains(part), "{text}");
    }
}

#[test]
fn a_vcpu_that_kvm_has_reset_says_so_instead_of_registers_that_mean_nothing() {
    let regs = kvm_regs { rip: 0xfff0, ..kvm_regs::default() };
    let mut sregs = kvm_sregs::default();
    sregs.cs.base = 0xffff_0000;
    assert_eq!(registers(&regs, &sregs, None), "registers lost (KVM had reset the vCPU)");
}

#[test]
fn an_instruction_that_kvm_cannot_emulate_is_shown() {
    let mut run = kvm_run::default();
    let mut failure = kvm_bindings::kvm_run__bindgen_ty_1__bindgen_ty_14 {
        suberror: KVM_INTERNAL_ERROR_EMULATION,
        ndata: 4,
        flags: 1,
        ..Default::default()
    };
    let instruction = kvm_bindings::kvm_run__bindgen_ty_1__bindgen_ty_14__bindgen_ty_1__bindgen_ty_1 {
        insn_size: 3,
        insn_bytes: [0x0f, 0xc7, 0x0f, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9],
    };
    failure.__bindgen_anon_1.__bindgen_anon_1 = instruction;
    run.__bindgen_anon_1.emulation_failure = failure;
    let text = internal_error(&run);
    assert!(text.starts_with("internal error 1 (") && text.ends_with(", instruction 0f c7 0f"), "{text}");
    failure.flags = 0;
    run.__bindgen_anon_1.emulation_failure = failure;
    assert!(!internal_error(&run).contains("instruction 0f"));
}

#[test]
fn the_data_of_another_internal_error_is_shown_as_far_as_there_is_any() {
    let mut run = kvm_run::default();
    let mut data = [7; 16];
    (data[0], data[1]) = (0x8000_0b0e, 0x30);
    run.__bindgen_anon_1.internal =
        kvm_bindings::kvm_run__bindgen_ty_1__bindgen_ty_13 { suberror: 3, ndata: 2, data };
    let text = internal_error(&run);
    assert_eq!(text, "internal error 3 (an exit while an event was delivered) 0x80000b0e 0x30");
}
