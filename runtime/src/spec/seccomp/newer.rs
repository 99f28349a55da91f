//! The answer to system calls that are newer than the profile: ENOSYS, as if the kernel did not have them.
//!
//! A profile that refuses by default was written when its list of names was complete. A C library tries what is newer
//! and falls back on ENOSYS, but takes the profile's EPERM for the answer to what it wanted. So what has a number above
//! all that the profile names, whatever it says of them, does not exist. A profile that lets through by default, or
//! says ENOSYS itself, needs nothing.

use libseccomp::{ScmpAction, ScmpArch, ScmpSyscall};

use super::Profile;

/// Set in the numbers of x32 (`__X32_SYSCALL_BIT` of asm/unistd.h).
const X32_BIT: u32 = 0x4000_0000;
/// linux/audit.h.
const AUDIT_ARCH_X86_64: u32 = 0xc000_003e;
const AUDIT_ARCH_I386: u32 = 0x4000_0003;
/// Offsets in `seccomp_data` of linux/seccomp.h.
const NUMBER: u32 = 0;
const ARCH: u32 = 4;
/// linux/bpf_common.h: load a word, jump if equal, if greater, if a bit is set, and return.
const LOAD: u16 = 0x20;
const IF_EQUAL: u16 = 0x15;
const IF_GREATER: u16 = 0x25;
const IF_SET: u16 = 0x45;
const RETURN: u16 = 0x06;
/// `SECCOMP_RET_ERRNO`.
const ERRNO: u32 = 0x0005_0000;

/// Instructions to put in front of libseccomp's; none where there is nothing to do.
pub(super) fn prologue(profile: &Profile) -> Vec<u8> {
    match profile.default {
        ScmpAction::Allow | ScmpAction::Log | ScmpAction::Trace(_) => return Vec::new(),
        ScmpAction::Errno(errno) if errno == libc::ENOSYS => return Vec::new(),
        _ => {}
    }
    // Nothing is above the largest number, so an architecture without one passes on to libseccomp's part.
    let last = |arch| last(profile, arch).unwrap_or(u32::MAX);
    // Jumps count from the next instruction, to 9 for ENOSYS and to 10 for what follows.
    let program = [
        (LOAD, 0, 0, ARCH),
        (IF_EQUAL, 0, 4, AUDIT_ARCH_X86_64),
        (LOAD, 0, 0, NUMBER),
        (IF_SET, 1, 0, X32_BIT),
        (IF_GREATER, 4, 5, last(ScmpArch::X8664)),
        (IF_GREATER, 3, 4, last(ScmpArch::X32)),
        (IF_EQUAL, 0, 3, AUDIT_ARCH_I386),
        (LOAD, 0, 0, NUMBER),
        (IF_GREATER, 0, 1, last(ScmpArch::X86)),
        (RETURN, 0, 0, ERRNO | libc::ENOSYS.unsigned_abs()),
    ];
    program.into_iter().flat_map(|(code, yes, no, k)| instruction(code, yes, no, k)).collect()
}

fn instruction(code: u16, yes: u8, no: u8, k: u32) -> [u8; 8] {
    let ([c0, c1], [k0, k1, k2, k3]) = (code.to_ne_bytes(), k.to_ne_bytes());
    [c0, c1, yes, no, k0, k1, k2, k3]
}

/// The largest number of an architecture of the filter that the profile names.
fn last(profile: &Profile, arch: ScmpArch) -> Option<u32> {
    if arch != ScmpArch::X8664 && !profile.architectures.contains(&arch) {
        return None;
    }
    let names = profile.rules.iter().flat_map(|rule| &rule.syscalls);
    let number =
        |name: &str| ScmpSyscall::from_name_by_arch(name, arch).ok()?.as_raw_syscall().try_into().ok();
    names.filter_map(|(name, _)| number(name)).max()
}
