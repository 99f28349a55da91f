//! What a process has from whoever calls the command, as with runc: the resource limits that its specification does not set.

use bulkhead_protocol::container::{ProcessSpec, Rlimit};
use rustix::process::{Resource, getrlimit};

/// All kinds, by their numbers (asm-generic/resource.h).
const KINDS: [Resource; 16] = [
    Resource::Cpu,
    Resource::Fsize,
    Resource::Data,
    Resource::Stack,
    Resource::Core,
    Resource::Rss,
    Resource::Nproc,
    Resource::Nofile,
    Resource::Memlock,
    Resource::As,
    Resource::Locks,
    Resource::Sigpending,
    Resource::Msgqueue,
    Resource::Nice,
    Resource::Rtprio,
    Resource::Rttime,
];

/// Adds the limits of this command, which it has from its caller.
pub(super) fn inherit_limits(process: &mut ProcessSpec) {
    let given = |resource: u32| process.rlimits.iter().any(|limit| limit.resource == resource);
    let own = (0_u32..).zip(KINDS).filter(|(resource, _)| !given(*resource));
    process.inherited_rlimits = own
        .map(|(resource, kind)| {
            let limit = getrlimit(kind);
            let bytes = |value: Option<u64>| value.unwrap_or(libc::RLIM_INFINITY);
            Rlimit { resource, soft: bytes(limit.current), hard: bytes(limit.maximum) }
        })
        .collect();
}

#[cfg(test)]
mod tests;
