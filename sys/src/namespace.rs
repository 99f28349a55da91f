//! Entering namespaces with setns(2), by rustix alone. A namespace belongs to a thread, so there are two ways: the calling
//! thread goes for good, or another thread goes, works there and ends.

use std::{io, os::fd::AsFd, thread};

pub use rustix::thread::{LinkNameSpaceType as Kind, ThreadNameSpaceType as Kinds};
use rustix::thread::{UnshareFlags, move_into_link_name_space, move_into_thread_name_spaces, unshare_unsafe};

/// Moves the calling thread into a namespace, which `namespace` is a descriptor of (a file of /proc/PID/ns). One system call,
/// so it may stand between fork and exec. A pid namespace counts for children made from then on.
///
/// # Errors
/// Those of setns(2): EINVAL when the namespace is of another kind, EPERM without the capability, EUSERS and EINVAL for a
/// process of several threads where the kind forbids it.
pub fn enter(namespace: impl AsFd, kind: Kind) -> io::Result<()> {
    Ok(move_into_link_name_space(namespace.as_fd(), Some(kind))?)
}

/// Moves the calling thread into several namespaces of the process behind a pidfd: all or none.
///
/// # Errors
/// Those of setns(2), as for `enter`; ESRCH when the process has ended.
pub fn enter_those_of(process: impl AsFd, kinds: Kinds) -> io::Result<()> {
    Ok(move_into_thread_name_spaces(process.as_fd(), kinds)?)
}

/// Runs `work` on a thread of its own in a network namespace. What it opens stays of that namespace.
///
/// # Errors
/// When no thread can be made, or it cannot enter; or `work` panicked.
pub fn visit_network<T: Send>(namespace: impl AsFd + Sync, work: impl FnOnce() -> T + Send) -> io::Result<T> {
    visit("netns", || enter(&namespace, Kind::Network), work)
}

/// Runs `work` on a thread of its own in the mount namespace of the process behind a pidfd. What it opens stays open.
///
/// # Errors
/// As `visit_network`.
pub fn visit_mounts_of<T: Send>(process: impl AsFd + Sync, work: impl FnOnce() -> T + Send) -> io::Result<T> {
    let inside = || {
        // SAFETY: root and working directory stop being shared, for this thread alone, which nobody else relies on; setns(2)
        // asks for it. No descriptor table is unshared.
        unsafe { unshare_unsafe(UnshareFlags::FS) }?;
        enter_those_of(&process, Kinds::MOUNT)
    };
    visit("mntns", inside, work)
}

/// Runs `work` on a thread of its own whose children are in a pid namespace of their own: the first is its pid 1. The namespace that
/// this process is in may be one that it could not enter again, as that of a rootless engine is.
///
/// # Errors
/// Those of unshare(2): EPERM without CAP_SYS_ADMIN. As `visit_network`.
pub fn with_children_in_new_pid_namespace<T: Send>(work: impl FnOnce() -> T + Send) -> io::Result<T> {
    // SAFETY: NEWPID changes where the children of this thread go, and nothing else; no memory or descriptor is unshared.
    let leave = || Ok(unsafe { unshare_unsafe(UnshareFlags::NEWPID) }?);
    visit("pidns", leave, work)
}

fn visit<T: Send>(
    name: &str,
    enter: impl FnOnce() -> io::Result<()> + Send,
    work: impl FnOnce() -> T + Send,
) -> io::Result<T> {
    thread::scope(|scope| {
        let inside = || enter().map(|()| work());
        let visitor = thread::Builder::new().name(name.to_owned()).spawn_scoped(scope, inside)?;
        visitor.join().unwrap_or_else(|_| Err(io::Error::other("the thread in the namespace panicked")))
    })
}

#[cfg(test)]
mod tests;
