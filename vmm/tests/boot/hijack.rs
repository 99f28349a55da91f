//! A system call in a thread of the VMM that it would not make: what somebody who has taken the thread over would try.

use std::{fs, io};

use rustix::process::Pid;

/// The kernel's `user_regs_struct` counts from here: the instruction of a system call has two bytes.
const SYSCALL: u64 = 2;
/// `orig_rax` of a thread that is in no system call.
const NO_CALL: u64 = u64::MAX;

/// The id of the thread with this name, on the host.
pub(crate) fn thread(process: Pid, name: &str) -> i32 {
    let tasks = fs::read_dir(format!("/proc/{}/task", process.as_raw_nonzero())).unwrap();
    let mut tasks = tasks.map(|task| task.unwrap().path());
    let task = tasks.find(|task| fs::read_to_string(task.join("comm")).unwrap().trim() == name).unwrap();
    task.file_name().unwrap().to_str().unwrap().parse().unwrap()
}

/// Lets a thread make the call `number` instead of the one that it waits in, or else of the next that it makes.
pub(crate) fn call_in(thread: i32, number: i64) {
    // SAFETY: registers are written to `registers` alone, which has the kernel's layout; the rest passes integers and
    // changes only the other process.
    unsafe {
        ptrace(libc::PTRACE_SEIZE, thread, 0);
        ptrace(libc::PTRACE_INTERRUPT, thread, 0);
        let mut registers = stopped(thread);
        if registers.orig_rax == NO_CALL {
            // It was at work. The kernel looks at filters after this stop, and by the number in `orig_rax`.
            ptrace(libc::PTRACE_SYSCALL, thread, 0);
            registers = stopped(thread);
            registers.orig_rax = number as u64;
        } else {
            // It waits behind the instruction that brought it there. No call is to be restarted.
            registers.rip -= SYSCALL;
            registers.rax = number as u64;
            registers.orig_rax = NO_CALL;
        }
        ptrace(libc::PTRACE_SETREGS, thread, (&raw const registers) as u64);
        ptrace(libc::PTRACE_DETACH, thread, 0);
    }
}

/// The registers of a traced thread, when it stops.
fn stopped(thread: i32) -> libc::user_regs_struct {
    // SAFETY: both calls write to what is given here, which has the kernel's layout.
    unsafe {
        let mut status = 0;
        assert_eq!(libc::waitpid(thread, &raw mut status, libc::__WALL), thread);
        assert!(libc::WIFSTOPPED(status), "{status:x}");
        let mut registers: libc::user_regs_struct = std::mem::zeroed();
        ptrace(libc::PTRACE_GETREGS, thread, (&raw mut registers) as u64);
        registers
    }
}

/// # Safety
/// As the request wants it.
unsafe fn ptrace(request: libc::c_uint, thread: i32, data: u64) {
    // SAFETY: the caller's duty.
    let done = unsafe { libc::ptrace(request, thread, 0, data) };
    assert_eq!(done, 0, "ptrace {request:#x}: {}", io::Error::last_os_error());
}
