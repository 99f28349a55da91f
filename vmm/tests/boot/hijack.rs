//! A system call in a thread of the VMM that it would not make: what somebody who has taken the thread over would try.

use std::{fs, io};

use rustix::process::Pid;

/// The kernel's `user_regs_struct` counts from here: the instruction of a system call has two bytes.
const SYSCALL: u64 = 2;

/// The id of the thread with this name, on the host.
pub(crate) fn thread(process: Pid, name: &str) -> i32 {
    let tasks = fs::read_dir(format!("/proc/{}/task", process.as_raw_nonzero())).unwrap();
    let mut tasks = tasks.map(|task| task.unwrap().path());
    let task = tasks.find(|task| fs::read_to_string(task.join("comm")).unwrap().trim() == name).unwrap();
    task.file_name().unwrap().to_str().unwrap().parse().unwrap()
}

/// Lets a thread that waits in some system call make the call `number` instead.
pub(crate) fn call_in(thread: i32, number: i64) {
    // SAFETY: registers are written to `registers` alone, which has the kernel's layout; the rest passes integers and
    // changes only the other process.
    unsafe {
        ptrace(libc::PTRACE_SEIZE, thread, 0);
        ptrace(libc::PTRACE_INTERRUPT, thread, 0);
        let mut status = 0;
        assert_eq!(libc::waitpid(thread, &raw mut status, libc::__WALL), thread);
        assert!(libc::WIFSTOPPED(status), "{status:x}");
        let mut registers: libc::user_regs_struct = std::mem::zeroed();
        ptrace(libc::PTRACE_GETREGS, thread, (&raw mut registers) as u64);
        // It waits behind the instruction that brought it there. No call is to be restarted.
        registers.rip -= SYSCALL;
        registers.rax = number as u64;
        registers.orig_rax = u64::MAX;
        ptrace(libc::PTRACE_SETREGS, thread, (&raw const registers) as u64);
        ptrace(libc::PTRACE_DETACH, thread, 0);
    }
}

/// # Safety
/// As the request wants it.
unsafe fn ptrace(request: libc::c_uint, thread: i32, data: u64) {
    // SAFETY: the caller's duty.
    let done = unsafe { libc::ptrace(request, thread, 0, data) };
    assert_eq!(done, 0, "ptrace {request:#x}: {}", io::Error::last_os_error());
}
