//! The system calls for locks. Byte ranges are locked by open file descriptions (F_OFD_SETLK): those of a process would all
//! be one owner's, and go with any descriptor of the file that this process closes.

use std::os::fd::{AsFd, AsRawFd as _};

use rustix::{
    fs::{FlockOperation, flock as flock_call},
    io::Errno,
};

use super::request::{Access, Range};

/// Whether a call waits while another has the lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wait {
    No,
    /// Ends with EINTR at a signal.
    Yes,
}

/// What stands in the way, as the host's kernel says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Obstacle {
    pub(super) range: Range,
    pub(super) access: Access,
}

/// Locks a range, or frees it.
///
/// # Errors
/// EAGAIN when another has it.
pub(super) fn range(file: impl AsFd, range: Range, access: Option<Access>, wait: Wait) -> Result<(), Errno> {
    let command = match wait {
        Wait::No => libc::F_OFD_SETLK,
        Wait::Yes => libc::F_OFD_SETLKW,
    };
    match fcntl(file, command, &mut asked(range, access)) {
        // Both mean the same (fcntl(2)).
        Err(Errno::ACCESS) => Err(Errno::AGAIN),
        done => done,
    }
}

/// What would be in the way of such a lock.
pub(super) fn test(file: impl AsFd, range: Range, access: Access) -> Result<Option<Obstacle>, Errno> {
    let mut lock = asked(range, Some(access));
    fcntl(file, libc::F_OFD_GETLK, &mut lock)?;
    let access = match i32::from(lock.l_type) {
        libc::F_UNLCK => return Ok(None),
        libc::F_WRLCK => Access::Write,
        _ => Access::Read,
    };
    let start = lock.l_start.cast_unsigned();
    let end = match lock.l_len {
        0 => i64::MAX.cast_unsigned(),
        length => start.saturating_add(length.cast_unsigned()).saturating_sub(1),
    };
    Ok(Range::new(start, end).map(|range| Obstacle { range, access }))
}

/// Locks a whole file, or frees it.
///
/// # Errors
/// EAGAIN when another has it. The lock that this opening had is gone then.
pub(super) fn flock(file: impl AsFd, access: Option<Access>, wait: Wait) -> Result<(), Errno> {
    let operation = match (access, wait) {
        (Some(Access::Read), Wait::No) => FlockOperation::NonBlockingLockShared,
        (Some(Access::Read), Wait::Yes) => FlockOperation::LockShared,
        (Some(Access::Write), Wait::No) => FlockOperation::NonBlockingLockExclusive,
        (Some(Access::Write), Wait::Yes) => FlockOperation::LockExclusive,
        (None, _) => FlockOperation::NonBlockingUnlock,
    };
    flock_call(file, operation)
}

fn asked(range: Range, access: Option<Access>) -> libc::flock64 {
    let kind = match access {
        Some(Access::Read) => libc::F_RDLCK,
        Some(Access::Write) => libc::F_WRLCK,
        None => libc::F_UNLCK,
    };
    libc::flock64 {
        l_type: kind as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: range.start().cast_signed(),
        l_len: range.length(),
        // The kernel wants it so for locks of descriptions.
        l_pid: 0,
    }
}

fn fcntl(file: impl AsFd, command: libc::c_int, lock: &mut libc::flock64) -> Result<(), Errno> {
    // SAFETY: the descriptor is borrowed and open; each of the three commands takes a pointer to a flock64, which the kernel
    // reads and F_OFD_GETLK writes.
    let done = unsafe { libc::fcntl(file.as_fd().as_raw_fd(), command, std::ptr::from_mut(lock)) };
    if done == 0 { Ok(()) } else { Err(last_error()) }
}

fn last_error() -> Errno {
    let code = std::io::Error::last_os_error();
    Errno::from_io_error(&code).unwrap_or(Errno::IO)
}

/// Makes a thread of this process leave the call that it waits in, if it is in one.
pub(super) fn wake(process: libc::pid_t, thread: libc::pid_t) {
    // SAFETY: takes integers. The handler of the signal does nothing, and a thread that is gone is an error that does not matter.
    unsafe { libc::syscall(libc::SYS_tgkill, process, thread, wake_signal()) };
}

/// The signal behind the one that stops a vCPU (`confine::lists` names its number).
pub(super) fn wake_signal() -> libc::c_int {
    libc::SIGRTMIN() + 1
}
