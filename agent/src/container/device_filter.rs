//! Which devices a container may use: a BPF program on its cgroup (cgroup2 has no files for it).
//!
//!   rules, last first: each bit of the wanted access is decided by the last rule that names device and bit
//!     deny that touches an undecided bit ─▶ 0      allow: its bits are decided; none left ─▶ 1
//!   nothing more to ask ─▶ 0
//!
//! The usual devices of a container come behind the given rules, as runc has it: `deny a` in front is the common
//! case and must not take /dev/null away. BPF and the context: linux/bpf.h, `bpf_cgroup_dev_ctx`.

use std::os::fd::{AsFd, BorrowedFd};

use bulkhead_protocol::container::{DeviceKind, DeviceRule};
use bulkhead_sys::bpf::{self, Instruction, Kind};

use super::error::{ContainerError, During};

/// Rules taken from one specification. Each makes at most nine instructions; the kernel takes a million.
const RULES: usize = 4096;

/// BPF_DEVCG_ACC_* and BPF_DEVCG_DEV_* of linux/bpf.h.
const MKNOD: u32 = 1;
const READ: u32 = 2;
const WRITE: u32 = 4;
const BLOCK: u32 = 1;
const CHAR: u32 = 2;

/// Opcodes: class, size or operation, and mode of linux/bpf_common.h and linux/bpf.h.
const LOAD_WORD: u8 = 0x61;
const AND32: u8 = 0x54;
const SHIFT_RIGHT32: u8 = 0x74;
const MOVE32_REGISTER: u8 = 0xbc;
const MOVE64: u8 = 0xb7;
const JUMP_EQUAL32: u8 = 0x16;
const JUMP_UNEQUAL32: u8 = 0x56;
const EXIT: u8 = 0x95;

/// Registers as the program uses them. r0 is the answer, r1 the context.
const ANSWER: u8 = 0;
const CONTEXT: u8 = 1;
const KIND: u8 = 2;
/// Bits of the wanted access that no rule has decided yet.
const WANTED: u8 = 3;
const MAJOR: u8 = 4;
const MINOR: u8 = 5;
const SCRATCH: u8 = 6;

fn immediate(code: u8, register: u8, value: u32) -> Instruction {
    Instruction { code, registers: register, offset: 0, immediate: value.cast_signed() }
}

fn load(register: u8, offset: i16) -> Instruction {
    Instruction { code: LOAD_WORD, registers: register | CONTEXT << 4, offset, immediate: 0 }
}

fn answer(allow: bool) -> [Instruction; 2] {
    [immediate(MOVE64, ANSWER, allow.into()), immediate(EXIT, 0, 0)]
}

/// What runc lets every container use.
fn usual() -> Vec<DeviceRule> {
    let any = |kind| DeviceRule {
        allow: true,
        kind: Some(kind),
        major: None,
        minor: None,
        read: false,
        write: false,
        mknod: true,
    };
    let full = |major, minor| DeviceRule {
        allow: true,
        kind: Some(DeviceKind::Char),
        major: Some(major),
        minor,
        read: true,
        write: true,
        mknod: true,
    };
    let mut rules = vec![any(DeviceKind::Char), any(DeviceKind::Block)];
    // null, zero, full, random, urandom; tty, console, ptmx; the slaves of terminals.
    rules.extend([3, 5, 7, 8, 9].map(|minor| full(1, Some(minor))));
    rules.extend([0, 1, 2].map(|minor| full(5, Some(minor))));
    rules.push(full(136, None));
    rules
}

fn program(given: &[DeviceRule]) -> Vec<Instruction> {
    let mut code = vec![
        load(KIND, 0),
        immediate(AND32, KIND, 0xffff),
        load(WANTED, 0),
        immediate(SHIFT_RIGHT32, WANTED, 16),
        load(MAJOR, 4),
        load(MINOR, 8),
    ];
    let usual = usual();
    for rule in given.iter().chain(&usual).rev() {
        code.extend(block(rule));
    }
    code.extend(answer(false));
    code
}

/// The instructions of one rule; what does not match jumps behind its end.
fn block(rule: &DeviceRule) -> Vec<Instruction> {
    let kind = match rule.kind {
        None => None,
        Some(DeviceKind::Char) => Some(CHAR),
        Some(DeviceKind::Block) => Some(BLOCK),
        // Fifos are not devices for the kernel: nothing asks for one.
        Some(DeviceKind::Fifo) => return Vec::new(),
    };
    let bit = |wanted: bool, bit: u32| if wanted { bit } else { 0 };
    let bits = bit(rule.read, READ) | bit(rule.write, WRITE) | bit(rule.mknod, MKNOD);
    let mut code = Vec::new();
    for (register, wanted) in [(KIND, kind), (MAJOR, rule.major), (MINOR, rule.minor)] {
        code.extend(wanted.map(|value| immediate(JUMP_UNEQUAL32, register, value)));
    }
    if rule.allow {
        code.push(immediate(AND32, WANTED, !bits));
        code.push(immediate(JUMP_UNEQUAL32, WANTED, 0));
    } else {
        code.push(Instruction {
            code: MOVE32_REGISTER,
            registers: SCRATCH | WANTED << 4,
            offset: 0,
            immediate: 0,
        });
        code.push(immediate(AND32, SCRATCH, bits));
        code.push(immediate(JUMP_EQUAL32, SCRATCH, 0));
    }
    code.extend(answer(rule.allow));
    let end = code.len();
    for (at, instruction) in code.iter_mut().enumerate() {
        if matches!(instruction.code, JUMP_EQUAL32 | JUMP_UNEQUAL32) {
            // A block has at most nine instructions.
            instruction.offset = (end - at - 1) as i16;
        }
    }
    code
}

/// Loads the program and attaches it to the cgroup behind `cgroup`.
pub(super) fn attach(cgroup: BorrowedFd<'_>, rules: &[DeviceRule]) -> Result<(), ContainerError> {
    if rules.len() > RULES {
        return Err(ContainerError::refused(format_args!(
            "{} device rules, at most {RULES} are taken",
            rules.len()
        )));
    }
    let program = bpf::load(Kind::CgroupDevice, &program(rules)).during("load", "device rules")?;
    bpf::attach(cgroup, Kind::CgroupDevice, program.as_fd()).during("attach to cgroup", "device rules")
}

#[cfg(test)]
mod tests;
