//! What of the caller is kept from the server and the proxies, since they outlive the command: descriptors and privileges.
//!
//! Descriptors beyond standard error go no further than the command itself: it may be told to use one by a path such as
//! /proc/self/fd/5, but a program that it starts has none, or whoever waits for the end of a pipe would wait for the end of
//! the container.
//!
//! The server keeps the capabilities of its caller: it mounts, makes taps and maps ids. A proxy runs no program, so its
//! bounding set is emptied. Both stay dumpable: callers enter the namespaces of a proxy by its pid, and a caller without
//! CAP_SYS_PTRACE can enter only those of a dumpable process.

use std::{fs, io, os::fd::BorrowedFd};

use rustix::{
    io::{Errno, FdFlags},
    thread::CapabilitySet,
};

/// The first descriptor that is not a standard stream.
const FIRST: libc::c_uint = 3;

#[derive(Debug, thiserror::Error)]
#[error("{step}")]
pub struct ShedError {
    step: &'static str,
    source: io::Error,
}

/// Has every descriptor beyond standard error closed in the programs that this process starts; in this process they stay
/// open. To be called first: a descriptor that is opened later is close-on-exec anyway.
///
/// # Errors
/// The descriptors cannot be listed, on a kernel without close_range(2).
pub fn descriptors() -> Result<(), ShedError> {
    // SAFETY: no pointer is passed, and with this flag no descriptor is closed: it only sets a flag of each.
    let done =
        unsafe { libc::syscall(libc::SYS_close_range, FIRST, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC) };
    if done == 0 {
        return Ok(());
    }
    // Kernels before 5.11, or a filter of system calls around the caller.
    one_by_one()
        .map_err(|source| ShedError { step: "keep the caller's descriptors from other programs", source })
}

fn one_by_one() -> io::Result<()> {
    for entry in fs::read_dir("/proc/self/fd")? {
        let number = entry?.file_name().to_str().and_then(|name| name.parse::<i32>().ok());
        let Some(number) = number.filter(|number| *number >= FIRST.cast_signed()) else { continue };
        // SAFETY: the borrow lasts for one call. A number that is free by then, as that of the listing itself, is an error.
        let fd = unsafe { BorrowedFd::borrow_raw(number) };
        match rustix::io::fcntl_setfd(fd, FdFlags::CLOEXEC) {
            Ok(()) | Err(Errno::BADF) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(())
}

/// Leaves the caller's session keyring for an empty keyring, and sets no_new_privs. The caller's environment was cleared when
/// the process was started.
pub fn caller() -> Result<(), ShedError> {
    const KEYCTL_JOIN_SESSION_KEYRING: libc::c_int = 1;
    // SAFETY: no name is passed: a new keyring without one.
    let joined =
        unsafe { libc::syscall(libc::SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, std::ptr::null::<u8>()) };
    if joined < 0 {
        let source = io::Error::last_os_error();
        // A kernel without keyrings, or a container that must not use them and shares none.
        if !matches!(source.raw_os_error(), Some(libc::ENOSYS | libc::EPERM)) {
            return Err(ShedError { step: "leave the session keyring", source });
        }
    }
    rustix::thread::set_no_new_privs(true)
        .map_err(|errno| ShedError { step: "set no_new_privs", source: errno.into() })
}

/// Empties the bounding set, where the caller may.
pub fn bounding_set() {
    for number in 0..u64::BITS {
        let capability = CapabilitySet::from_bits_retain(1 << number);
        match rustix::thread::remove_capability_from_bounding_set(capability) {
            Ok(()) => {}
            // The kernel has no more; or nothing is to be gained by this process anyway.
            Err(Errno::INVAL | Errno::PERM) => return,
            Err(errno) => crate::log::note(&format!("bound the capabilities: {errno}")),
        }
    }
}

#[cfg(test)]
mod tests;
