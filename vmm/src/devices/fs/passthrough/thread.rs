//! What a thread needs of its own before it serves files, and whose work it does at the moment.
//!
//!   `own` once: working directory and umask split off, directory = /proc/self/fd, umask 0
//!   `As` for one call: groups, gid, uid of the guest's caller, and the umask where the host is to apply it; undone by drop
//!
//! Credentials are a thread's own for the kernel, and so are the system calls here: those of the C library would change all
//! threads. The effective uid takes the effective capabilities with it, and brings them back. One stays: whether the caller may
//! write to a directory is the guest's kernel to say, which knows of its capabilities and its user namespace, and it has said so.

use std::{io, os::fd::AsFd};

use rustix::{
    fs::Mode,
    process::{fchdir, umask},
    thread::{
        CapabilitySet, CapabilitySets, Gid, Uid, capabilities, set_capabilities, set_thread_groups,
        set_thread_res_gid, set_thread_res_uid,
    },
};

/// Splits the thread off from what it changes for itself. To be called once, before it serves: names in the working directory
/// are how a descriptor is named to calls that take none with O_PATH.
///
/// # Errors
/// The kernel refuses a step.
pub(super) fn own(proc_self_fd: impl AsFd) -> io::Result<()> {
    // SAFETY: a call without pointers; it splits off this thread's working directory, root and umask, and no code
    // outside of the file server depends on sharing them.
    if unsafe { libc::unshare(libc::CLONE_FS) } != 0 {
        return Err(io::Error::last_os_error());
    }
    fchdir(proc_self_fd)?;
    umask(Mode::empty());
    Ok(())
}

/// Who asks for a new file, as the guest's kernel says.
#[derive(Debug, Clone)]
pub(in super::super) struct Caller {
    pub(in super::super) uid: u32,
    pub(in super::super) gid: u32,
    /// Those of its groups that matter: Linux names the parent's group if it is one of the caller's.
    pub(in super::super) groups: Vec<u32>,
}

/// While it lives, the thread is the caller to the host.
#[derive(Debug)]
#[must_use]
pub(super) struct As {
    uid: bool,
    gid: bool,
    groups: bool,
    umask: bool,
}

impl As {
    /// `mask`: the umask that the host is to apply, where the directory has no default ACL.
    ///
    /// # Errors
    /// The kernel refuses a step; an id that no namespace has is EINVAL.
    pub(super) fn caller(caller: &Caller, mask: Option<u32>) -> io::Result<Self> {
        let Caller { uid, gid, groups } = caller;
        // Undone by drop, also when a later step fails.
        let mut now = Self { uid: false, gid: false, groups: false, umask: false };
        if *uid != 0 && !groups.is_empty() {
            let groups: Vec<Gid> = groups.iter().map(|gid| self::gid(*gid)).collect::<io::Result<_>>()?;
            set_thread_groups(&groups)?;
            now.groups = true;
        }
        // The group first: changing it takes a capability that goes with the user.
        if *gid != 0 {
            set_thread_res_gid(None, Some(self::gid(*gid)?), None)?;
            now.gid = true;
        }
        if *uid != 0 {
            set_thread_res_uid(None, Some(self::uid(*uid)?), None)?;
            now.uid = true;
            pass_every_mode()?;
        }
        if let Some(mask) = mask {
            umask(Mode::from_bits_retain(mask & 0o777));
            now.umask = true;
        }
        Ok(now)
    }
}

impl Drop for As {
    fn drop(&mut self) {
        // Real and saved ids are still 0, so these always succeed. A thread that stayed somebody else would do the next
        // caller's work with this one's rights.
        let back = "a thread returns to its own user and group";
        if self.uid {
            set_thread_res_uid(None, Some(Uid::ROOT), None).expect(back);
        }
        if self.gid {
            set_thread_res_gid(None, Some(Gid::ROOT), None).expect(back);
        }
        if self.groups {
            set_thread_groups(&[]).expect(back);
        }
        if self.umask {
            umask(Mode::empty());
        }
    }
}

/// Makes CAP_DAC_OVERRIDE effective again, and none beside it.
fn pass_every_mode() -> io::Result<()> {
    let sets = capabilities(None)?;
    let effective = sets.permitted & CapabilitySet::DAC_OVERRIDE;
    Ok(set_capabilities(None, CapabilitySets { effective, ..sets })?)
}

/// All ones mean "no change" to the kernel.
fn uid(uid: u32) -> io::Result<Uid> {
    if uid == u32::MAX { Err(io::Error::from_raw_os_error(libc::EINVAL)) } else { Ok(Uid::from_raw(uid)) }
}

fn gid(gid: u32) -> io::Result<Gid> {
    if gid == u32::MAX { Err(io::Error::from_raw_os_error(libc::EINVAL)) } else { Ok(Gid::from_raw(gid)) }
}
