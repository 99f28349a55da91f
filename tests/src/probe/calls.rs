//! What only system calls tell: policies of CPU, disk and memory, personality, and whether a call is let through.

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
    let answer = unsafe { libc::syscall(number, a, b, c, d, e, f) };
    Some(if answer == -1 { format!("{:?}", Errno::last()) } else { "ok".to_owned() })
}
