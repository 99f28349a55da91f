//! Resource limits, set on the parked process by the agent.
//!
//! From outside and late: the set-up needs more descriptors than a container may have, and raising a hard limit
//! takes a capability of the guest that a process in a user namespace no longer has.

use std::{collections::BTreeSet, fs};

use bulkhead_protocol::container::{ProcessSpec, Rlimit};

use super::error::{ContainerError, During};

/// `RLIM_NLIMITS` of x86_64.
const KINDS: u32 = 16;
/// `RLIMIT_NOFILE`.
const NOFILE: u32 = 7;
/// Linux's default of `fs.nr_open`.
const NR_OPEN: u64 = 1 << 20;

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

/// Those of the specification, and the caller's where it has none.
pub(super) fn apply(pid: u32, process: &ProcessSpec) -> Result<(), ContainerError> {
    let given = |kind| process.rlimits.iter().any(|limit| limit.resource == kind);
    let most = most_open_files();
    let inherited = process.inherited_rlimits.iter().filter(|limit| !given(limit.resource));
    set(pid, inherited.map(|limit| within(*limit, most)))?;
    set(pid, process.rlimits.iter().copied())
}

/// The most descriptors that the kernel lets a process have: `fs.nr_open` of proc(5).
fn most_open_files() -> u64 {
    let setting = fs::read_to_string("/proc/sys/fs/nr_open");
    setting.ok().and_then(|text| text.trim().parse().ok()).unwrap_or(NR_OPEN)
}

/// A host may let its processes have more open files than the guest's kernel does.
fn within(limit: Rlimit, most_open_files: u64) -> Rlimit {
    if limit.resource != NOFILE {
        return limit;
    }
    let hard = limit.hard.min(most_open_files);
    Rlimit { soft: limit.soft.min(hard), hard, ..limit }
}

fn set(pid: u32, limits: impl Iterator<Item = Rlimit>) -> Result<(), ContainerError> {
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
