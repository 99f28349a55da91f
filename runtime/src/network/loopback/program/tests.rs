use std::os::fd::AsFd as _;

use super::*;

/// As in `struct bpf_sk_lookup`, in words of four bytes.
fn question(family: i32, protocol: i32, local: &[u8]) -> [u32; 17] {
    let mut context = [0; 17];
    context[2] = family as u32;
    context[3] = protocol as u32;
    let first = if family == libc::AF_INET { 10 } else { 11 };
    for (word, bytes) in context[first..].iter_mut().zip(local.chunks(4)) {
        *word = u32::from_ne_bytes(bytes.try_into().unwrap());
    }
    context
}

/// What the program does for a question, by an interpreter of the instructions that it has: which entry of the map it looks
/// up, and that it always passes.
fn run(context: &[u32; 17]) -> Option<i32> {
    let file = std::fs::File::open("/dev/null").unwrap();
    let code = choose(file.as_fd());
    let (mut second, mut index, mut looked_up) = (0, None, None);
    let mut at = 0;
    loop {
        let Instruction { code: opcode, registers, offset, immediate } = code[at];
        at += 1;
        let jump = (at as i16 + offset) as usize;
        match opcode {
            LOAD_WORD => {
                assert_eq!(registers, SECOND | CONTEXT << 4);
                second = context[offset as usize / 4];
            }
            JUMP_UNEQUAL32 if second.cast_signed() != immediate => at = jump,
            JUMP => at = jump,
            STORE_WORD => index = Some(immediate),
            LOAD_LONG => {
                assert_eq!(immediate, file.as_raw_fd());
                at += 1;
            }
            CALL if immediate == MAP_LOOKUP_ELEM => looked_up = index,
            EXIT => {
                assert_eq!(code[at - 2], super::immediate(MOVE64, ANSWER, SK_PASS));
                return looked_up;
            }
            _ => {}
        }
    }
}

#[test]
fn tcp_to_a_loopback_address_gets_the_listener_of_its_family() {
    let localhost = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
    assert_eq!(run(&question(libc::AF_INET, libc::IPPROTO_TCP, &[127, 0, 0, 1])), Some(0));
    assert_eq!(run(&question(libc::AF_INET6, libc::IPPROTO_TCP, &localhost)), Some(1));
}

#[test]
fn all_else_is_left_alone() {
    for address in [[10, 77, 0, 2], [127, 0, 0, 11], [0, 0, 0, 0], [1, 0, 0, 127]] {
        assert_eq!(run(&question(libc::AF_INET, libc::IPPROTO_TCP, &address)), None, "{address:?}");
    }
    assert_eq!(run(&question(libc::AF_INET, libc::IPPROTO_UDP, &[127, 0, 0, 1])), None);
    for byte in 0..16 {
        let mut address = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
        address[byte] ^= 2;
        assert_eq!(run(&question(libc::AF_INET6, libc::IPPROTO_TCP, &address)), None, "{address:?}");
    }
    assert_eq!(run(&question(libc::AF_UNIX, libc::IPPROTO_TCP, &[127, 0, 0, 1])), None);
}

#[test]
fn every_way_out_is_the_pass_at_the_end() {
    let file = std::fs::File::open("/dev/null").unwrap();
    let code = choose(file.as_fd());
    for (at, instruction) in code.iter().enumerate() {
        if matches!(instruction.code, JUMP_UNEQUAL32 | JUMP_EQUAL64) && instruction.offset != 4 {
            assert_eq!(at as i16 + 1 + instruction.offset, code.len() as i16 - 2, "instruction {at}");
        }
    }
}
