//! User namespaces made for their id maps: an id-mapped mount refers to one (mount_setattr(2), MOUNT_ATTR_IDMAP).
//!
//!   child: unshare ─pipe─▶ parent: writes its maps, opens its namespace, ends it

use std::{
    fs, io,
    os::fd::{AsRawFd as _, OwnedFd},
};

use rustix::{
    pipe::{PipeFlags, pipe_with},
    process::{Pid, Signal, WaitOptions, kill_process, waitpid},
};

/// A range of ids inside a user namespace and what they are outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mapping {
    /// The first id inside.
    pub inside: u32,
    /// The first id outside.
    pub outside: u32,
    /// Ids in the range.
    pub count: u32,
}

/// Whether this process is in the user namespace that the kernel started with: every id is one of the machine. /proc must be
/// mounted; without it the answer is yes.
pub fn is_initial() -> bool {
    fs::read_to_string("/proc/self/uid_map").map_or(true, |map| maps_all(&map))
}

/// Whether a map, as uid_map has it, is that of the first user namespace.
fn maps_all(map: &str) -> bool {
    map.split_whitespace().eq(["0", "0", "4294967295"])
}

/// The effective uid of this process as the user namespace around its own has it; its own in the first one. /proc must be mounted;
/// without it the answer is the uid inside.
pub fn uid_outside() -> u32 {
    let uid = rustix::process::geteuid().as_raw();
    let map = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    outside(&map, uid).unwrap_or(uid)
}

/// What a map, as uid_map has it, makes of an id.
fn outside(map: &str, id: u32) -> Option<u32> {
    map.lines().find_map(|line| {
        let mut numbers = line.split_whitespace().map(str::parse::<u32>);
        let (inside, outside, count) = (numbers.next()?.ok()?, numbers.next()?.ok()?, numbers.next()?.ok()?);
        let offset = id.checked_sub(inside).filter(|offset| *offset < count)?;
        outside.checked_add(offset)
    })
}

/// What the child says when it lives in its namespace.
const MADE: [u8; 1] = [1];

/// A user namespace with these maps, in which nobody lives once it was opened. The process may have threads. /proc must be that
/// of this process's pid namespace.
///
/// # Errors
/// When the namespace cannot be made (ENOSPC: user.max_user_namespaces), or the kernel takes a map not: EINVAL for ranges that
/// overlap, EPERM without CAP_SETUID and CAP_SETGID outside.
pub fn with_maps(uids: &[Mapping], gids: &[Mapping]) -> io::Result<OwnedFd> {
    let (made, make) = pipe_with(PipeFlags::CLOEXEC)?;
    let (wait, release) = pipe_with(PipeFlags::CLOEXEC)?;
    // SAFETY: other threads may hold locks that the child has copies of: it makes system calls and ends.
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
        let number = child.as_raw_nonzero().get().unsigned_abs();
        write_maps(number, uids, gids)?;
        Ok(OwnedFd::from(fs::File::open(format!("/proc/{number}/ns/user"))?))
    })();
    // Not by the end of its pipe: a child that another thread makes at this moment would hold that open. It never ends
    // before, so the pid is its own. A reaper of this process may be what waits for it.
    let _ = kill_process(child, Signal::KILL);
    let _ = waitpid(Some(child), WaitOptions::empty());
    drop(release);
    opened
}

/// Writes both maps of the user namespace that the process `pid` is in, from outside. Once for each namespace: each map is one
/// write, which the kernel takes whole.
///
/// # Errors
/// Those of the files uid_map and gid_map (user_namespaces(7)).
pub fn write_maps(pid: u32, uids: &[Mapping], gids: &[Mapping]) -> io::Result<()> {
    for (file, mappings) in [("uid_map", uids), ("gid_map", gids)] {
        fs::write(format!("/proc/{pid}/{file}"), text(mappings))?;
    }
    Ok(())
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

/// As uid_map and gid_map take it.
fn text(mappings: &[Mapping]) -> String {
    mappings.iter().map(|m| format!("{} {} {}\n", m.inside, m.outside, m.count)).collect()
}

#[cfg(test)]
mod tests;
