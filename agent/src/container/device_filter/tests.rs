use super::*;

/// Runs a program as the kernel would; only what `program` emits is known.
fn run(code: &[Instruction], kind: u32, access: u32, major: u32, minor: u32) -> bool {
    let context = [access << 16 | kind, major, minor];
    let mut registers = [0_u32; 11];
    let mut at = 0;
    loop {
        let Instruction { code: opcode, registers: operands, offset, immediate } = code[at];
        let (destination, source) = (usize::from(operands & 15), usize::from(operands >> 4));
        let value = immediate.cast_unsigned();
        let mut jump = false;
        match opcode {
            LOAD_WORD => registers[destination] = context[usize::try_from(offset).unwrap() / 4],
            AND32 => registers[destination] &= value,
            SHIFT_RIGHT32 => registers[destination] >>= value,
            MOVE32_REGISTER => registers[destination] = registers[source],
            MOVE64 => registers[destination] = value,
            JUMP_EQUAL32 => jump = registers[destination] == value,
            JUMP_UNEQUAL32 => jump = registers[destination] != value,
            EXIT => return registers[0] == 1,
            other => panic!("opcode {other:#x}"),
        }
        at += 1 + if jump { usize::try_from(offset).unwrap() } else { 0 };
    }
}

fn rule(allow: bool, device: Option<(u32, u32)>, access: u32) -> DeviceRule {
    DeviceRule {
        allow,
        kind: device.map(|_| DeviceKind::Char),
        major: device.map(|(major, _)| major),
        minor: device.map(|(_, minor)| minor),
        read: access & READ != 0,
        write: access & WRITE != 0,
        mknod: access & MKNOD != 0,
    }
}

#[test]
fn without_rules_only_the_usual_devices_are_open() {
    let code = program(&[]);
    assert!(run(&code, CHAR, READ | WRITE, 1, 3));
    assert!(run(&code, CHAR, READ | WRITE, 136, 17));
    assert!(run(&code, BLOCK, MKNOD, 254, 0));
    assert!(!run(&code, BLOCK, READ, 254, 0));
    assert!(!run(&code, CHAR, READ, 10, 229));
    assert!(!run(&code, CHAR, MKNOD | READ, 10, 229));
}

#[test]
fn deny_all_in_front_leaves_the_usual_devices() {
    let code = program(&[rule(false, None, READ | WRITE | MKNOD)]);
    assert!(run(&code, CHAR, READ | WRITE | MKNOD, 1, 5));
    assert!(!run(&code, CHAR, WRITE, 10, 200));
}

#[test]
fn rights_of_two_rules_add_up() {
    let code = program(&[rule(true, Some((10, 229)), READ), rule(true, Some((10, 229)), WRITE)]);
    assert!(run(&code, CHAR, READ | WRITE, 10, 229));
    assert!(!run(&code, CHAR, READ | WRITE, 10, 228));
}

#[test]
fn the_last_rule_counts() {
    let all = READ | WRITE | MKNOD;
    let code = program(&[rule(true, None, all), rule(false, Some((10, 229)), WRITE)]);
    assert!(run(&code, CHAR, READ, 10, 229));
    assert!(!run(&code, CHAR, READ | WRITE, 10, 229));
    assert!(run(&code, BLOCK, all, 8, 0));
}

#[test]
fn a_major_above_the_signed_range_matches_only_itself() {
    let code = program(&[rule(true, Some((u32::MAX, 0)), READ)]);
    assert!(run(&code, CHAR, READ, u32::MAX, 0));
    assert!(!run(&code, CHAR, READ, 0x7fff_ffff, 0));
}

#[test]
fn the_kernel_takes_a_program_of_many_rules() {
    let rules: Vec<_> = (0..500).map(|n| rule(n % 2 == 0, Some((n, n)), READ)).collect();
    match bpf::load(Kind::CgroupDevice, &program(&rules)) {
        Ok(_) => {}
        // Not root, or a kernel without it: then there is nothing to check here.
        Err(error) => assert!(matches!(error.raw_os_error(), Some(libc::EPERM | libc::EINVAL)), "{error}"),
    }
}
