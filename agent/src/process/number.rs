//! A process by its number, for what the kernel offers no other way: only while the number is certainly its own.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd},
};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// Gives `act` the pid of the process behind `pidfd`.
///
/// A number is free once its process was reaped, and that is after its exit: one that has not exited by the end of `act`
/// had its number all the time. It is looked at before as well, for what `act` changes cannot be taken back.
///
/// # Errors
/// ESRCH when the process has exited before, or by the time that `act` was done.
pub fn by_number<T>(pid: u32, pidfd: BorrowedFd<'_>, act: impl FnOnce(u32) -> T) -> io::Result<T> {
    let check = || if has_exited(pidfd)? { Err(rustix::io::Errno::SRCH.into()) } else { io::Result::Ok(()) };
    check()?;
    let done = act(pid);
    check()?;
    Ok(done)
}

/// A pidfd is readable once its process has exited, reaped or not.
pub fn has_exited(pidfd: impl AsFd) -> io::Result<bool> {
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    let mut fds = [PollFd::new(&pidfd, PollFlags::IN)];
    Ok(poll(&mut fds, Some(&now))? > 0)
}

#[cfg(test)]
mod tests;
