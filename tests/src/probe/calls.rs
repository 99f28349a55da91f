//! What only system calls tell: policies of CPU, disk and memory, personality, and which calls are let through.

use std::collections::BTreeMap;

use nix::errno::Errno;
use serde_json::{Value, json};

/// `sched_getattr(2)` of this process.
pub fn scheduler() -> Value {
    // SAFETY: all of it is numbers, for which zero is a value.
    let mut attributes: libc::sched_attr = unsafe { std::mem::zeroed() };
    let size = size_of::<libc::sched_attr>();
    // SAFETY: the kernel writes at most `size` bytes to `attributes`, which has them.
    let answer = unsafe { libc::syscall(libc::SYS_sched_getattr, 0, &raw mut attributes, size, 0) };
    match answer {
        0 => json!({
            "policy": attributes.sched_policy,
            "flags": attributes.sched_flags,
            "nice": attributes.sched_nice,
            "priority": attributes.sched_priority,
            "runtime": attributes.sched_runtime
        }),
        _ => json!(Errno::last().to_string()),
    }
}

/// `[class, priority]`.
pub fn io_priority() -> Value {
    const WHO_PROCESS: i32 = 1;
    // SAFETY: no pointer is passed.
    let answer = unsafe { libc::syscall(libc::SYS_ioprio_get, WHO_PROCESS, 0) };
    json!([answer >> 13, answer & 0x1fff])
}

pub fn personality() -> Value {
    // SAFETY: this value only asks.
    json!(unsafe { libc::personality(0xffff_ffff) })
}

/// `[mode, nodes]`.
pub fn memory_policy() -> Value {
    // As many nodes as the kernel can be built for.
    let (mut mode, mut nodes) = (0_i32, [0_u64; 16]);
    let bits = 64 * nodes.len();
    // SAFETY: the kernel writes one int and `bits` bits, for which there is room.
    let answer = unsafe {
        libc::syscall(libc::SYS_get_mempolicy, &raw mut mode, nodes.as_mut_ptr(), bits, 0_usize, 0)
    };
    if answer == 0 { json!([mode, nodes[0]]) } else { json!(Errno::last().to_string()) }
}

/// Calls that filters and missing capabilities refuse. Their arguments are such that they change nothing, and fail with
/// another error where they are let through.
const GUARDED: [(&str, libc::c_long, [libc::c_long; 2]); 11] = [
    ("getpid", libc::SYS_getpid, [0, 0]),
    ("uname", libc::SYS_uname, [0, 0]),
    ("mount", libc::SYS_mount, [0, 0]),
    ("unshare", libc::SYS_unshare, [0, 0]),
    ("setns", libc::SYS_setns, [-1, 0]),
    ("sethostname", libc::SYS_sethostname, [0, 4]),
    // Without its magic numbers.
    ("reboot", libc::SYS_reboot, [0, 0]),
    ("init_module", libc::SYS_init_module, [0, 0]),
    ("ptrace", libc::SYS_ptrace, [libc::PTRACE_PEEKDATA as libc::c_long, 0]),
    ("open_by_handle_at", libc::SYS_open_by_handle_at, [-1, 0]),
    // Above all numbers that a profile can know.
    ("4000", 4000, [0, 0]),
];

/// What comes of each of some calls.
pub fn allowed() -> BTreeMap<String, String> {
    let outcome = |number, [a, b]: [libc::c_long; 2]| {
        // SAFETY: as the table says, nothing is read or written by these calls.
        answer(unsafe { libc::syscall(number, a, b, 0, 0, 0, 0) })
    };
    GUARDED
        .into_iter()
        .map(|(name, number, arguments)| (name.to_owned(), outcome(number, arguments)))
        .collect()
}

fn answer(result: libc::c_long) -> String {
    if result == -1 { format!("{:?}", Errno::last()) } else { "ok".to_owned() }
}

/// "ok", or the error's name. Arguments are numbers: calls that take pointers fail with EFAULT where they are let
/// through.
pub fn call(number: &str, arguments: &[&str]) -> Option<String> {
    let mut values = [0_i64; 6];
    for (value, argument) in values.iter_mut().zip(arguments) {
        *value = argument.parse().ok()?;
    }
    let [a, b, c, d, e, f] = values;
    let number: libc::c_long = number.parse().ok()?;
    // SAFETY: tests call what writes to no memory of this process, and this is all that it still does.
    Some(answer(unsafe { libc::syscall(number, a, b, c, d, e, f) }))
}
