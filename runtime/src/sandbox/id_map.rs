//! Id maps of volumes: a detached mount shows the owners of its files as others, by the maps of a user namespace.
//!
//!   child: unshare ─pipe─▶ parent: writes its maps, opens its namespace, ends it, mount_setattr
//!
//! On the host and not in the guest: there every directory of the share is a filesystem of its own, which Linux 6.12
//! does not let have an id map. The filesystem of the volume must be able to (ext4, xfs, btrfs; tmpfs since 6.3).

use std::{
    fs, io,
    os::fd::{AsRawFd as _, BorrowedFd, OwnedFd},
};

use bulkhead_protocol::container::{IdMap, IdMapping};
use rustix::{
    pipe::{PipeFlags, pipe_with},
    process::{Pid, Signal, WaitOptions, kill_process, waitpid},
};

use super::share::{Attributes, set_attributes};

/// What the child says when it lives in its namespace.
const MADE: [u8; 1] = [1];

/// Maps the ids of a mount that is attached nowhere yet.
pub(crate) fn apply(tree: BorrowedFd<'_>, map: &IdMap) -> io::Result<()> {
    let namespace = namespace(map)?;
    let descriptor = u64::from(namespace.as_raw_fd().cast_unsigned());
    let mapped = Attributes { set: libc::MOUNT_ATTR_IDMAP, namespace: descriptor, ..Attributes::default() };
    Ok(set_attributes(tree, &mapped, map.recursive)?)
}

/// A user namespace with these maps, in which nobody lives once it was opened.
fn namespace(map: &IdMap) -> io::Result<OwnedFd> {
    let (made, make) = pipe_with(PipeFlags::CLOEXEC)?;
    let (wait, release) = pipe_with(PipeFlags::CLOEXEC)?;
    // SAFETY: this process has threads, so the child may hold locks of theirs: it makes system calls and ends.
    let child = match unsafe { libc::fork() } {
        -1 => return Err(io::Error::last_os_error()),
        // SAFETY: in the child of a fork; the descriptors are open, for both pairs live in this frame.
        0 => unsafe { live(made.as_raw_fd(), make.as_raw_fd(), wait.as_raw_fd(), release.as_raw_fd()) },
        child => Pid::from_raw(child).ok_or(io::ErrorKind::InvalidInput)?,
    };
    drop((make, wait));
    let opened = (|| {
        let mut answer = [0];
        if rustix::io::read(&made, &mut answer)? != 1 || answer != MADE {
            return Err(io::Error::other("no user namespace can be made"));
        }
        let process = format!("/proc/{}", child.as_raw_nonzero());
        for (file, mappings) in [("uid_map", &map.uids), ("gid_map", &map.gids)] {
            fs::write(format!("{process}/{file}"), text(mappings))?;
        }
        Ok(OwnedFd::from(fs::File::open(format!("{process}/ns/user"))?))
    })();
    // Not by the end of its pipe: a child that another thread makes at this moment would hold that open. It never ends
    // before, so the pid is its own. The server's reaper may be the one that waits for it.
    let _ = kill_process(child, Signal::KILL);
    let _ = waitpid(Some(child), WaitOptions::empty());
    drop(release);
    opened
}

/// The child: makes the namespace, says whether it could, and waits to be ended, at the latest with its parent.
///
/// # Safety
/// Only in the child of a fork, with open descriptors.
unsafe fn live(made: libc::c_int, make: libc::c_int, wait: libc::c_int, release: libc::c_int) -> ! {
    let mut byte = 0_u8;
    // SAFETY: system calls alone, which are safe after a fork; `byte` outlives them and has the length given. The
    // ends that are closed belong to the parent's side, and this process never returns to their owners.
    unsafe {
        libc::close(made);
        libc::close(release);
        if libc::unshare(libc::CLONE_NEWUSER) == 0 {
            byte = MADE[0];
        }
        if libc::write(make, (&raw const byte).cast(), 1) == 1 {
            libc::read(wait, (&raw mut byte).cast(), 1);
        }
        libc::_exit(0)
    }
}

/// As uid_map and gid_map take it (user_namespaces(7)).
fn text(mappings: &[IdMapping]) -> String {
    mappings.iter().map(|m| format!("{} {} {}\n", m.container, m.host, m.size)).collect()
}

#[cfg(test)]
mod tests;
