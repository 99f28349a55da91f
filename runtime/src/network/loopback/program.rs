//! The program that chooses the listener for a connection; `bpf_sk_lookup` of linux/bpf.h is what it is asked about.
//!
//!   TCP to 127.0.0.1 ─▶ socket 0      TCP to ::1 ─▶ socket 1      all else, and what others have decided ─▶ as without it

use std::os::fd::{AsRawFd as _, BorrowedFd};

use bulkhead_sys::bpf::Instruction;

/// Entries of the map: the listener of each family.
pub(super) const FOUR: u32 = 0;
pub(super) const SIX: u32 = 1;
pub(super) const SOCKETS: u32 = 2;

/// Offsets in `struct bpf_sk_lookup`. Addresses are in network byte order.
const FAMILY: i16 = 8;
const PROTOCOL: i16 = 12;
const LOCAL_IP4: i16 = 40;
const LOCAL_IP6: [i16; 4] = [44, 48, 52, 56];

/// Opcodes: class, size or operation, and mode of linux/bpf_common.h and linux/bpf.h.
const LOAD_WORD: u8 = 0x61;
const STORE_WORD: u8 = 0x62;
/// Of two instructions; with `MAP` as its source the value is a map by its descriptor.
const LOAD_LONG: u8 = 0x18;
const MAP: u8 = 1;
const ADD64: u8 = 0x07;
const MOVE64: u8 = 0xb7;
const MOVE64_REGISTER: u8 = 0xbf;
const JUMP: u8 = 0x05;
const JUMP_EQUAL64: u8 = 0x15;
const JUMP_UNEQUAL32: u8 = 0x56;
const CALL: u8 = 0x85;
const EXIT: u8 = 0x95;

/// Functions of the kernel.
const MAP_LOOKUP_ELEM: i32 = 1;
const SK_RELEASE: i32 = 86;
const SK_ASSIGN: i32 = 124;

/// r0 is an answer, r1 to r5 are arguments, which a call takes away, r6 to r9 stay, r10 is the end of the stack.
const ANSWER: u8 = 0;
const FIRST: u8 = 1;
const SECOND: u8 = 2;
const THIRD: u8 = 3;
const CONTEXT: u8 = 6;
const SOCKET: u8 = 7;
const STACK: u8 = 10;
/// Where the index of the map is, from `STACK`.
const INDEX: i16 = -4;

const SK_PASS: i32 = 1;
/// Stands for the way to the program's last two instructions, which leave all as it is.
const PASS: i16 = 0;

fn immediate(code: u8, register: u8, value: i32) -> Instruction {
    Instruction { code, registers: register, offset: 0, immediate: value }
}

fn copy(to: u8, from: u8) -> Instruction {
    Instruction { code: MOVE64_REGISTER, registers: to | from << 4, offset: 0, immediate: 0 }
}

fn load(offset: i16) -> Instruction {
    Instruction { code: LOAD_WORD, registers: SECOND | CONTEXT << 4, offset, immediate: 0 }
}

fn unless(value: i32, jump: i16) -> Instruction {
    Instruction { code: JUMP_UNEQUAL32, registers: SECOND, offset: jump, immediate: value }
}

fn index(value: u32) -> Instruction {
    Instruction { code: STORE_WORD, registers: STACK, offset: INDEX, immediate: value.cast_signed() }
}

fn call(function: i32) -> Instruction {
    immediate(CALL, 0, function)
}

/// The program, with the map behind `sockets`.
pub(super) fn choose(sockets: BorrowedFd<'_>) -> Vec<Instruction> {
    let localhost = i32::from_ne_bytes([127, 0, 0, 1]);
    let one = i32::from_ne_bytes([0, 0, 0, 1]);
    let mut code = vec![
        copy(CONTEXT, FIRST),
        load(PROTOCOL),
        unless(libc::IPPROTO_TCP, PASS),
        load(FAMILY),
        unless(libc::AF_INET, 4),
        load(LOCAL_IP4),
        unless(localhost, PASS),
        index(FOUR),
        Instruction { code: JUMP, registers: 0, offset: 10, immediate: 0 },
        unless(libc::AF_INET6, PASS),
        load(LOCAL_IP6[0]),
        unless(0, PASS),
        load(LOCAL_IP6[1]),
        unless(0, PASS),
        load(LOCAL_IP6[2]),
        unless(0, PASS),
        load(LOCAL_IP6[3]),
        unless(one, PASS),
        index(SIX),
        Instruction {
            code: LOAD_LONG,
            registers: FIRST | MAP << 4,
            offset: 0,
            immediate: sockets.as_raw_fd(),
        },
        immediate(0, 0, 0),
        copy(SECOND, STACK),
        immediate(ADD64, SECOND, INDEX.into()),
        call(MAP_LOOKUP_ELEM),
        Instruction { code: JUMP_EQUAL64, registers: ANSWER, offset: PASS, immediate: 0 },
        copy(SOCKET, ANSWER),
        copy(FIRST, CONTEXT),
        copy(SECOND, SOCKET),
        immediate(MOVE64, THIRD, 0),
        // Fails when another program has chosen: that holds.
        call(SK_ASSIGN),
        copy(FIRST, SOCKET),
        call(SK_RELEASE),
    ];
    let end = code.len();
    for (at, instruction) in code.iter_mut().enumerate() {
        if matches!(instruction.code, JUMP_UNEQUAL32 | JUMP_EQUAL64) && instruction.offset == PASS {
            // There are few instructions.
            instruction.offset = (end - at - 1) as i16;
        }
    }
    code.extend([immediate(MOVE64, ANSWER, SK_PASS), immediate(EXIT, 0, 0)]);
    code
}

#[cfg(test)]
mod tests;
