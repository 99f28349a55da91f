//! Processes by pidfd, and by their number only while the number is certainly theirs.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
};

/// Gives `act` the pid of the process behind `pidfd`, for what the kernel offers by number alone.
///
/// A number is free once its process was reaped, and that is after its exit: a process that has not exited by the end of
/// `act` had its number all the time. It is looked at before as well, since what `act` changes cannot be taken back.
///
/// # Errors
/// ESRCH when the process has exited before, or by the time that `act` was done.
pub fn by_number<T>(pid: u32, pidfd: BorrowedFd<'_>, act: impl FnOnce(u32) -> T) -> io::Result<T> {
    let check = || if has_exited(pidfd)? { Err(Errno::SRCH.into()) } else { io::Result::Ok(()) };
    check()?;
    let done = act(pid);
    check()?;
    Ok(done)
}

/// Whether the process has exited, reaped or not: a pidfd is readable from then on (pidfd_open(2)).
///
/// # Errors
/// Those of poll(2).
pub fn has_exited(pidfd: impl AsFd) -> io::Result<bool> {
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    let mut fds = [PollFd::new(&pidfd, PollFlags::IN)];
    loop {
        match poll(&mut fds, Some(&now)) {
            Err(Errno::INTR) => {}
            ready => return Ok(ready? > 0),
        }
    }
}

#[cfg(test)]
mod tests;
