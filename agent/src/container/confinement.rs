//! What all processes of a container get beside credentials: the filter of system calls, personality, memory policy.
//! Each is set by the process itself and lives through the exec.

use std::io;

use bulkhead_protocol::container::{FilterProgram, MemoryPolicy, Personality, Seccomp};
use rustix::thread::{CapabilitySets, set_capabilities};

use super::error::{ContainerError, During};

/// linux/personality.h.
const PER_LINUX: libc::c_ulong = 0;
const PER_LINUX32: libc::c_ulong = 8;

/// A filter of system calls, ready to be set: `set` allocates nothing, so that a fork may do it before its exec.
#[derive(Debug, Clone)]
pub(super) struct Filter {
    program: Vec<libc::sock_filter>,
    flags: u32,
    /// Without no_new_privs a filter takes CAP_SYS_ADMIN, which these have.
    raised: Option<CapabilitySets>,
}

impl Filter {
    pub(super) fn new(seccomp: &Seccomp, raised: Option<CapabilitySets>) -> Self {
        let program = seccomp.program.instructions().filter_map(instruction).collect();
        Self { program, flags: seccomp.flags, raised }
    }

    /// For this process and those that it makes from now on. The kernel checks the program.
    pub(super) fn set(&self) -> io::Result<()> {
        if let Some(raised) = self.raised {
            set_capabilities(None, raised)?;
        }
        let length = u16::try_from(self.program.len()).unwrap_or(0);
        // The kernel's structure is not const, but it only reads.
        let argument = libc::sock_fprog { len: length, filter: self.program.as_ptr().cast_mut() };
        // SAFETY: `argument` names exactly the `length` instructions of `program`; both outlive the call, which only
        // reads them.
        let answer = unsafe {
            libc::syscall(
                libc::SYS_seccomp,
                libc::c_long::from(libc::SECCOMP_SET_MODE_FILTER),
                libc::c_long::from(self.flags),
                &raw const argument,
            )
        };
        match answer {
            0 => Ok(()),
            // TSYNC answers the thread that could not take the filter; here is only one.
            _ => Err(io::Error::last_os_error()),
        }
    }
}

fn instruction(bytes: &[u8]) -> Option<libc::sock_filter> {
    const { assert!(size_of::<libc::sock_filter>() == FilterProgram::INSTRUCTION) };
    let [c0, c1, jt, jf, k0, k1, k2, k3] = *bytes else { return None };
    let (code, k) = (u16::from_ne_bytes([c0, c1]), u32::from_ne_bytes([k0, k1, k2, k3]));
    Some(libc::sock_filter { code, jt, jf, k })
}

pub(super) fn set_personality(personality: Personality) -> Result<(), ContainerError> {
    let wanted = match personality {
        Personality::Linux => PER_LINUX,
        Personality::Linux32 => PER_LINUX32,
    };
    // SAFETY: no pointer is passed; without flags nothing changes for the code that is running.
    let answer = unsafe { libc::personality(wanted) };
    if answer >= 0 { Ok(()) } else { Err(io::Error::last_os_error()).during("set", "personality") }
}

pub(super) fn set_memory_policy(policy: MemoryPolicy) -> Result<(), ContainerError> {
    // The kernel takes one bit off the number it is given.
    let bits: libc::c_ulong = 65;
    let nodes = if policy.nodes == 0 { std::ptr::null() } else { &raw const policy.nodes };
    // SAFETY: `nodes` is null or a set of 64 bits, as many as the kernel reads; it outlives the call.
    let answer = unsafe {
        libc::syscall(
            libc::SYS_set_mempolicy,
            libc::c_long::from(policy.mode),
            nodes,
            if policy.nodes == 0 { 0 } else { bits },
        )
    };
    if answer == 0 { Ok(()) } else { Err(io::Error::last_os_error()).during("set", "memory policy") }
}

#[cfg(test)]
mod tests;
