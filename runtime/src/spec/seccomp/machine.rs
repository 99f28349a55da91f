//! The kernel's machine for filters, as far as libseccomp uses it: what a compiled profile says of a system call.

use bulkhead_protocol::container::FilterProgram;

pub(super) const X86_64: u32 = 0xc000_003e;
pub(super) const I386: u32 = 0x4000_0003;
pub(super) const X32: u32 = 0x4000_0000;

/// linux/seccomp.h.
pub(super) const ALLOW: u32 = 0x7fff_0000;
pub(super) const LOG: u32 = 0x7ffc_0000;
pub(super) const TRAP: u32 = 0x0003_0000;
pub(super) const KILL_THREAD: u32 = 0;
pub(super) const KILL_PROCESS: u32 = 0x8000_0000;

pub(super) fn errno(number: i32) -> u32 {
    0x0005_0000 | number.unsigned_abs()
}

pub(super) fn trace(message: u32) -> u32 {
    0x7ff0_0000 | message
}

/// `seccomp_data` as the filter loads it: number, architecture, instruction pointer, arguments.
pub(super) fn run(program: &FilterProgram, arch: u32, number: u32, args: &[u64]) -> u32 {
    let mut data = [0_u32; 16];
    (data[0], data[1]) = (number, arch);
    for (place, argument) in args.iter().enumerate() {
        data[4 + place * 2] = *argument as u32;
        data[5 + place * 2] = (argument >> 32) as u32;
    }
    let program: Vec<&[u8]> = program.instructions().collect();
    let (mut at, mut a) = (0, 0_u32);
    loop {
        let &[c0, c1, yes, no, k0, k1, k2, k3] = program[at] else { panic!("no instruction") };
        let (code, k) = (u16::from_ne_bytes([c0, c1]), u32::from_ne_bytes([k0, k1, k2, k3]));
        let jump = |yes_no: bool| usize::from(if yes_no { yes } else { no });
        at += 1 + match code {
            0x20 => {
                a = data[k as usize / 4];
                0
            }
            0x54 => {
                a &= k;
                0
            }
            0x05 => k as usize,
            0x15 => jump(a == k),
            0x25 => jump(a > k),
            0x35 => jump(a >= k),
            0x45 => jump(a & k != 0),
            0x06 => return k,
            other => panic!("instruction {other:#x} at {at}"),
        };
    }
}
