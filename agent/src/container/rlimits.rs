//! Resource limits, set on the parked process by the agent.
//!
//! From outside and late: the set-up needs more descriptors than a container may have, and raising a hard limit
//! takes a capability of the guest that a process in a user namespace no longer has.

use std::collections::BTreeSet;

use bulkhead_protocol::container::Rlimit;

use super::error::{ContainerError, During};

/// `RLIM_NLIMITS` of x86_64.
const KINDS: u32 = 16;

pub(super) fn check(limits: &[Rlimit]) -> Result<(), ContainerError> {
    let mut seen = BTreeSet::new();
    for limit in limits {
        let kind = limit.resource;
        if kind >= KINDS {
            return Err(ContainerError::refused(format_args!("resource limit {kind} does not exist")));
        }
        if !seen.insert(kind) {
            return Err(ContainerError::refused(format_args!("resource limit {kind} is given twice")));
        }
    }
    Ok(())
}

pub(super) fn apply(pid: u32, limits: &[Rlimit]) -> Result<(), ContainerError> {
    for limit in limits {
        let wanted = libc::rlimit64 { rlim_cur: limit.soft, rlim_max: limit.hard };
        // SAFETY: `wanted` is a valid rlimit64 that outlives the call; no old value is asked for.
        let answer = unsafe {
            libc::prlimit64(pid.cast_signed(), limit.resource, &raw const wanted, std::ptr::null_mut())
        };
        if answer != 0 {
            return Err(std::io::Error::last_os_error()).during("set resource limit", limit.resource);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
