//! Namespaces: which are new, which are joined, and the fork of the process that lives in them.
//!
//!   launcher ─clone3(new namespaces, the cgroup, a sibling)─▶ the container's process, a child of the agent
//!
//! The process is forked with `CLONE_PARENT`, so PID 1 is its parent from the first moment and can wait for it, and
//! its pid and pidfd are answered by the kernel as PID 1 sees them. It begins inside its cgroup: nothing it does
//! is ever charged elsewhere. Id mappings are written by the launcher, which is root outside.

use std::{
    fs,
    os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
};

use bulkhead_protocol::container::{IdMapping, NamespaceKind, TimeOffsets};
use bulkhead_sys::{
    namespace::{Kinds, enter_those_of},
    pidfd::by_number,
    user_namespace::{self, Mapping},
};

use super::error::{ContainerError, During};

/// Sets of namespaces are `CLONE_NEW*` bits, as all of the kernel's calls take them.
pub(super) const CGROUP: u32 = libc::CLONE_NEWCGROUP as u32;
pub(super) const MOUNT: u32 = libc::CLONE_NEWNS as u32;
pub(super) const USER: u32 = libc::CLONE_NEWUSER as u32;
pub(super) const NETWORK: u32 = libc::CLONE_NEWNET as u32;
pub(super) const TIME: u32 = libc::CLONE_NEWTIME as u32;

/// `CLONE_INTO_CGROUP` of linux/sched.h, which does not fit libc's type for it.
const INTO_CGROUP: u64 = 1 << 33;

pub(super) fn bit(kind: NamespaceKind) -> u32 {
    match kind {
        NamespaceKind::Pid => libc::CLONE_NEWPID as u32,
        NamespaceKind::Network => NETWORK,
        NamespaceKind::Mount => MOUNT,
        NamespaceKind::Ipc => libc::CLONE_NEWIPC as u32,
        NamespaceKind::Uts => libc::CLONE_NEWUTS as u32,
        NamespaceKind::User => USER,
        NamespaceKind::Cgroup => CGROUP,
        NamespaceKind::Time => TIME,
    }
}

/// The files of /proc/PID/ns and what each stands for.
const FILES: [(&str, NamespaceKind); 8] = [
    ("pid", NamespaceKind::Pid),
    ("net", NamespaceKind::Network),
    ("mnt", NamespaceKind::Mount),
    ("ipc", NamespaceKind::Ipc),
    ("uts", NamespaceKind::Uts),
    ("user", NamespaceKind::User),
    ("cgroup", NamespaceKind::Cgroup),
    ("time", NamespaceKind::Time),
];

/// The namespaces in which the process `pid` behind `pidfd` is and we are not.
///
/// # Errors
/// It has ended: what the number says is then nothing of it.
pub(super) fn foreign(pid: u32, pidfd: BorrowedFd<'_>) -> Result<u32, ContainerError> {
    by_number(pid, pidfd, different).during("read namespaces of", format_args!("process {pid}"))?
}

fn different(pid: u32) -> Result<u32, ContainerError> {
    let mut bits = 0;
    for (file, kind) in FILES {
        let read = |who: &str| fs::read_link(format!("/proc/{who}/ns/{file}"));
        let theirs =
            read(&pid.to_string()).during("read namespace", format_args!("/proc/{pid}/ns/{file}"))?;
        let ours = read("self").during("read namespace", format_args!("/proc/self/ns/{file}"))?;
        if theirs != ours {
            bits |= bit(kind);
        }
    }
    Ok(bits)
}

/// Joins namespaces of the process behind `target`. None at all is no error: the late ones of a join may be none.
pub(super) fn join(target: BorrowedFd<'_>, bits: u32) -> Result<(), ContainerError> {
    if bits == 0 {
        return Ok(());
    }
    let kinds = Kinds::from_bits_retain(bits);
    enter_those_of(target, kinds).during("join namespaces", format_args!("{bits:#x}"))
}

/// Moves this process alone into new namespaces.
pub(super) fn unshare(bits: u32, what: &'static str) -> Result<(), ContainerError> {
    // SAFETY: unshare changes only the calling thread's namespaces; container-init has one thread and `bits` never
    // holds CLONE_FILES, so no descriptor table is split.
    let done =
        unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::from_bits_retain(bits)) };
    done.during("make namespace", what)
}

/// Makes a time namespace, which nobody is in before our next child: only until then can its clocks be set.
pub(super) fn new_time(offsets: &TimeOffsets) -> Result<(), ContainerError> {
    const FILE: &str = "/proc/self/timens_offsets";
    unshare(TIME, "time")?;
    for (clock, offset) in [("monotonic", offsets.monotonic), ("boottime", offsets.boottime)] {
        if let Some(offset) = offset {
            let line = format!("{clock} {} {}", offset.seconds, offset.nanoseconds);
            fs::write(FILE, &line).during("set clock offset", line)?;
        }
    }
    Ok(())
}

/// Which side of the fork we are on.
pub(super) enum Fork {
    /// The launcher; the process as PID 1's namespace sees it.
    Launcher { pid: u32, pidfd: OwnedFd },
    /// The new process.
    Process,
}

/// Forks a sibling (a child of our parent) into new namespaces and a cgroup. Only for a process of one thread.
///
/// # Errors
/// `CgroupClosed` where cgroup2 lets no process in (Documentation/admin-guide/cgroup-v2.rst, "No Internal Process
/// Constraint" and "Threads"), or the cgroup was removed.
pub(super) fn fork_sibling(namespaces: u32, cgroup: BorrowedFd<'_>) -> Result<Fork, ContainerError> {
    let mut pidfd: libc::c_int = -1;
    let arguments = libc::clone_args {
        flags: u64::from(namespaces) | libc::CLONE_PARENT as u64 | libc::CLONE_PIDFD as u64 | INTO_CGROUP,
        pidfd: (&raw mut pidfd) as u64,
        child_tid: 0,
        parent_tid: 0,
        // With CLONE_PARENT the kernel takes over our own exit signal, which is SIGCHLD.
        exit_signal: 0,
        stack: 0,
        stack_size: 0,
        tls: 0,
        set_tid: 0,
        set_tid_size: 0,
        cgroup: cgroup.as_raw_fd() as u64,
    };
    // SAFETY: `arguments` is a valid clone_args of the size given and outlives the call; `pidfd` is a valid place
    // for an int. Without CLONE_VM the child has its own copy of our memory, as after fork; this process has one
    // thread, so no lock can be held by a thread that does not exist in the child.
    let answer = unsafe {
        libc::syscall(libc::SYS_clone3, &raw const arguments, std::mem::size_of::<libc::clone_args>())
    };
    match u32::try_from(answer) {
        Err(_) => {
            let error = std::io::Error::last_os_error();
            match error.raw_os_error() {
                Some(libc::EBUSY | libc::EOPNOTSUPP | libc::ENODEV) => {
                    Err(ContainerError::CgroupClosed { source: error.into() })
                }
                _ => Err(error).during("make process in new namespaces", format_args!("{namespaces:#x}")),
            }
        }
        Ok(0) => Ok(Fork::Process),
        Ok(pid) => {
            // SAFETY: the kernel has just made this descriptor for us (CLONE_PIDFD) and nobody else has it.
            let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
            Ok(Fork::Launcher { pid, pidfd })
        }
    }
}

/// Writes both id maps of a new user namespace, in which the process `pid` behind `pidfd` is, from outside.
pub(super) fn map_ids(
    pid: u32,
    pidfd: BorrowedFd<'_>,
    uids: &[IdMapping],
    gids: &[IdMapping],
) -> Result<(), ContainerError> {
    const STEP: &str = "write id maps of";
    let (uids, gids) = (mappings(uids), mappings(gids));
    let write = |pid| user_namespace::write_maps(pid, &uids, &gids);
    by_number(pid, pidfd, write).during(STEP, "user namespace")?.during(STEP, "user namespace")
}

pub(super) fn mappings(mappings: &[IdMapping]) -> Vec<Mapping> {
    let mapping = |m: &IdMapping| Mapping { inside: m.container, outside: m.host, count: m.size };
    mappings.iter().map(mapping).collect()
}

#[cfg(test)]
mod tests;
