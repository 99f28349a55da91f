//! Privileges of the caller that the server and the proxies give up, since they outlive the command.
//!
//! The server keeps the capabilities of its caller: it mounts, makes taps and maps ids. A proxy runs no program, so its
//! bounding set is emptied. Both stay dumpable: callers enter the namespaces of a proxy by its pid, and a caller without
//! CAP_SYS_PTRACE can enter only those of a dumpable process.

use std::io;

use rustix::{io::Errno, thread::CapabilitySet};

#[derive(Debug, thiserror::Error)]
#[error("{step}")]
pub struct ShedError {
    step: &'static str,
    source: io::Error,
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
