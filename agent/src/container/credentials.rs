//! Who the process is when it execs: groups, ids, five capability sets.
//!
//!   bounding set ─ keep capabilities ─ groups ─ gid ─ uid ─ permitted, effective, inheritable ─ ambient
//!
//! The bounding set needs CAP_SETPCAP and the ids need CAP_SETUID and CAP_SETGID, so both come before the other
//! sets shrink; keepcaps carries the permitted set over the change of uid. A capability that the kernel does not
//! know or that we do not have is left out with a warning, as the specification asks. Sets that contradict each other are
//! the kernel's to refuse (capabilities(7)): effective goes beyond permitted, or inheritable beyond the bounding set.

use bulkhead_protocol::container::{Capabilities, User};
use rustix::{
    fs::Mode,
    process::{Gid, Uid, umask},
    thread::{
        CapabilitySet, CapabilitySets, capabilities, capability_is_in_bounding_set,
        clear_ambient_capability_set, configure_capability_in_ambient_set,
        remove_capability_from_bounding_set, set_capabilities, set_keep_capabilities, set_thread_groups,
        set_thread_res_gid, set_thread_res_uid,
    },
};

use super::error::{ContainerError, During};

/// What a container gets when its specification gives no umask.
const DEFAULT_UMASK: u32 = 0o022;

/// The sets that can be granted, and what had to be left out.
#[derive(Debug, PartialEq, Eq)]
struct Granted {
    sets: Capabilities,
    missing: u64,
}

/// `have` is the permitted set, `bounds` the bounding set we start with.
fn grant(wanted: Capabilities, have: u64, bounds: u64) -> Granted {
    let permitted = wanted.permitted & have;
    let inheritable = wanted.inheritable & have;
    let sets = Capabilities {
        bounding: wanted.bounding & bounds,
        effective: wanted.effective & have,
        inheritable,
        permitted,
        // As runc and crun have it, what the kernel would not raise is left out.
        ambient: wanted.ambient & permitted & inheritable,
    };
    let missing = (wanted.bounding & !sets.bounding)
        | (wanted.effective & !sets.effective)
        | (wanted.inheritable & !sets.inheritable)
        | (wanted.permitted & !sets.permitted)
        | (wanted.ambient & !sets.ambient);
    Granted { sets, missing }
}

/// The state between the bounding set and the others.
#[derive(Debug)]
pub(super) struct Reduced(Capabilities);

/// Shrinks the bounding set; answers the capabilities that cannot be granted, as bits.
pub(super) fn reduce_bounds(wanted: Capabilities) -> Result<(Reduced, u64), ContainerError> {
    const STEP: &str = "drop from the bounding set";
    let have = capabilities(None).during("read", "capabilities")?;
    let mut bounds = 0;
    for bit in each(u64::MAX) {
        // An error is the kernel's way to say that it knows no such capability.
        if capability_is_in_bounding_set(bit).unwrap_or(false) {
            bounds |= bit.bits();
        }
    }
    let granted = grant(wanted, have.permitted.bits(), bounds);
    for bit in each(bounds & !granted.sets.bounding) {
        remove_capability_from_bounding_set(bit)
            .during(STEP, format_args!("capability {}", bit.bits().trailing_zeros()))?;
    }
    Ok((Reduced(granted.sets), granted.missing))
}

/// Becomes the user, still with every permitted capability.
pub(super) fn become_user(user: &User) -> Result<(), ContainerError> {
    set_keep_capabilities(true).during("keep", "capabilities")?;
    let groups: Vec<Gid> = user.additional_gids.iter().map(|&gid| Gid::from_raw(gid)).collect();
    set_thread_groups(&groups).during("set groups", format_args!("{:?}", user.additional_gids))?;
    let gid = Gid::from_raw(user.gid);
    set_thread_res_gid(gid, gid, gid).during("set gid", user.gid)?;
    let uid = Uid::from_raw(user.uid);
    set_thread_res_uid(uid, uid, uid).during("set uid", user.uid)?;
    umask(Mode::from_raw_mode(user.umask.unwrap_or(DEFAULT_UMASK) & 0o777));
    Ok(())
}

/// What a filter takes without no_new_privs.
const FOR_FILTER: u64 = CapabilitySet::SYS_ADMIN.bits();

/// Takes the remaining sets; `for_filter` keeps one capability in reserve, which is not effective.
pub(super) fn take_capabilities(reduced: &Reduced, for_filter: bool) -> Result<(), ContainerError> {
    const STEP: &str = "set";
    let sets = reduced.0;
    clear_ambient_capability_set().during("clear", "ambient capabilities")?;
    let reserve = if for_filter { FOR_FILTER } else { 0 };
    set(sets.effective, sets.permitted | reserve, sets.inheritable)?;
    for bit in each(sets.ambient) {
        configure_capability_in_ambient_set(bit, true)
            .during(STEP, format_args!("ambient capability {}", bit.bits().trailing_zeros()))?;
    }
    set_keep_capabilities(false).during("stop keeping", "capabilities")
}

/// With the reserve effective. It need not be given away again: execve(2) computes the new sets from the bounding, the
/// inheritable and the ambient set, where it is not (capabilities(7)).
pub(super) fn raised_for_filter(reduced: &Reduced) -> CapabilitySets {
    let sets = reduced.0;
    these(sets.effective | FOR_FILTER, sets.permitted | FOR_FILTER, sets.inheritable)
}

fn set(effective: u64, permitted: u64, inheritable: u64) -> Result<(), ContainerError> {
    set_capabilities(None, these(effective, permitted, inheritable)).during("set", "capabilities")
}

fn these(effective: u64, permitted: u64, inheritable: u64) -> CapabilitySets {
    CapabilitySets {
        effective: CapabilitySet::from_bits_retain(effective),
        permitted: CapabilitySet::from_bits_retain(permitted),
        inheritable: CapabilitySet::from_bits_retain(inheritable),
    }
}

/// Root of a fresh user namespace: until now we are an id that it does not know.
pub(super) fn become_root_inside() -> Result<(), ContainerError> {
    set_thread_groups(&[]).during("clear", "groups")?;
    set_thread_res_gid(Gid::ROOT, Gid::ROOT, Gid::ROOT).during("set gid", 0)?;
    set_thread_res_uid(Uid::ROOT, Uid::ROOT, Uid::ROOT).during("set uid", 0)
}

/// A session keyring of our own. Kernels without keys have nothing to share.
pub(super) fn new_keyring() -> Result<(), ContainerError> {
    // KEYCTL_JOIN_SESSION_KEYRING of linux/keyctl.h; no name makes an anonymous one.
    const JOIN_SESSION: libc::c_int = 1;
    // SAFETY: a null name is allowed and nothing else is read.
    let answer = unsafe { libc::syscall(libc::SYS_keyctl, JOIN_SESSION, std::ptr::null::<libc::c_char>()) };
    if answer >= 0 {
        return Ok(());
    }
    match std::io::Error::last_os_error() {
        error if error.raw_os_error() == Some(libc::ENOSYS) => Ok(()),
        error => Err(error).during("make", "session keyring"),
    }
}

fn each(bits: u64) -> impl Iterator<Item = CapabilitySet> {
    (0..u64::BITS).filter(move |n| bits >> n & 1 == 1).map(|n| CapabilitySet::from_bits_retain(1 << n))
}

#[cfg(test)]
mod tests;
