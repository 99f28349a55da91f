//! The VMM gives up the host: own user, pid, network, IPC and UTS namespaces at once, the rest when it knows its root.
//!
//!   outer process ─fork▶ map writer (stays outside, writes the identity maps, ends)
//!        │ unshare user, net, ipc, uts, pid
//!        └─fork▶ inner process, pid 1: sends nothing, waits for `Request::Boot`, then `Inner::close`
//!   outer process: Event::Started {pid of the inner}, ends
//!
//! `Inner::close` makes the mount namespace, and not earlier: the share's descriptor names a mount of the host, and
//! only as working directory is it carried over into the copy of the mount tree. All of this runs single-threaded
//! and before KVM_CREATE_VM (a VM belongs to the address space that made it).

mod landlock;
mod maps;
mod root;

use std::{
    fs::{self, File},
    io,
    os::fd::OwnedFd,
};

use rustix::{
    process::{DumpableBehavior, Resource, Rlimit, getrlimit, set_dumpable_behavior, setrlimit},
    thread::{CapabilitySet, CapabilitySets},
};

use self::landlock::LandlockError;

/// Everything above stays with the spawner. The file server holds one descriptor for each inode the guest knows.
const OPEN_FILES: u64 = 1 << 20;

/// Threads and kernel workers of this process: 32 vCPUs, the loop, the workers of files and of disks, those that wait for locks, a
/// vhost worker for each network.
const THREADS: u64 = 80;

/// What file serving needs inside the user namespace; none of them means anything on the host outside of the
/// share's mounts.
const CAPABILITIES: CapabilitySet = CapabilitySet::CHOWN
    .union(CapabilitySet::DAC_OVERRIDE)
    .union(CapabilitySet::FOWNER)
    .union(CapabilitySet::FSETID)
    .union(CapabilitySet::SETGID)
    .union(CapabilitySet::SETUID)
    .union(CapabilitySet::MKNOD)
    .union(CapabilitySet::SETFCAP);

#[derive(Debug, thiserror::Error)]
pub enum JailError {
    /// `step` is the system call and its object.
    #[error("jail: {step}")]
    Step { step: &'static str, source: io::Error },
    #[error("jail: write the user and group maps (the writer ended with status {status})")]
    Maps { status: i32 },
    #[error("jail: Landlock")]
    Landlock(#[from] LandlockError),
}

/// Names the step that failed.
fn step(step: &'static str) -> impl Fn(rustix::io::Errno) -> JailError {
    move |errno| JailError::Step { step, source: errno.into() }
}

fn last(step: &'static str) -> JailError {
    JailError::Step { step, source: io::Error::last_os_error() }
}

/// Which process `enter` returned in.
#[derive(Debug)]
pub enum Side {
    /// The pid of the inner process, as the spawner sees it. Nothing is left to do here but to tell it and end.
    Outer {
        inner: u32,
    },
    Inner(Inner),
}

/// The process that stays: in its namespaces, still in the host's mount tree.
#[derive(Debug)]
pub struct Inner(());

/// Splits the process. Must be called single-threaded, with nothing open but stdio and the control socket.
///
/// # Errors
/// The kernel refuses a step, which the message names. The process is to end then.
pub fn enter() -> Result<Side, JailError> {
    leave_keyring()?;
    limit_resources()?;
    let writer = maps::Writer::start()?;
    let namespaces = libc::CLONE_NEWUSER
        | libc::CLONE_NEWNET
        | libc::CLONE_NEWIPC
        | libc::CLONE_NEWUTS
        | libc::CLONE_NEWPID;
    // SAFETY: changes the namespaces of this process, which has one thread; no memory is involved.
    if unsafe { libc::unshare(namespaces) } != 0 {
        return Err(last("unshare the user, network, IPC, UTS and pid namespaces"));
    }
    writer.finish()?;
    // SAFETY: the process has one thread, so the child finds no lock held by a thread it does not have.
    match unsafe { libc::fork() } {
        -1 => Err(last("fork the inner process")),
        0 => Ok(Side::Inner(Inner(()))),
        inner => Ok(Side::Outer { inner: inner.unsigned_abs() }),
    }
}

impl Inner {
    /// For tests of what comes before `close`.
    #[cfg(test)]
    pub(crate) fn unjailed() -> Self {
        Self(())
    }

    /// Makes `share` the root of all that this process can see, and keeps eight capabilities. Returns /proc/self/fd
    /// of a procfs that shows this process alone and is mounted nowhere; the file server reopens inodes by it.
    ///
    /// # Errors
    /// The kernel refuses a step, which the message names. The process is to end then.
    pub fn close(self, share: &OwnedFd) -> Result<File, JailError> {
        forbid_user_namespaces();
        let proc_self_fd = root::pivot_into(share)?;
        // SAFETY: no pointer is passed: an empty list of groups.
        if unsafe { libc::setgroups(0, std::ptr::null()) } != 0 {
            return Err(last("drop the supplementary groups"));
        }
        bound_capabilities()?;
        rustix::thread::clear_ambient_capability_set().map_err(step("clear the ambient capabilities"))?;
        rustix::thread::set_no_new_privs(true).map_err(step("set no_new_privs"))?;
        landlock::restrict()?;
        let sets = CapabilitySets {
            effective: CAPABILITIES,
            permitted: CAPABILITIES,
            inheritable: CapabilitySet::empty(),
        };
        rustix::thread::set_capabilities(None, sets).map_err(step("drop capabilities"))?;
        // Nobody but a privileged process of the host looks into it, or traces it.
        set_dumpable_behavior(DumpableBehavior::NotDumpable).map_err(step("forbid dumps"))?;
        Ok(proc_self_fd)
    }
}

/// For when all threads are there: no list of system calls has fork or clone, and this is the same again. The kernel
/// exempts its own uid 0.
///
/// # Errors
/// The kernel refuses the limit.
pub fn limit_threads() -> Result<(), JailError> {
    let threads = Rlimit { current: Some(THREADS), maximum: Some(THREADS) };
    setrlimit(Resource::Nproc, threads).map_err(step("limit the threads"))
}

/// Takes every capability but the eight out of the bounding set.
fn bound_capabilities() -> Result<(), JailError> {
    for number in 0..u64::BITS {
        let capability = CapabilitySet::from_bits_retain(1 << number);
        if CAPABILITIES.contains(capability) {
            continue;
        }
        match rustix::thread::remove_capability_from_bounding_set(capability) {
            Ok(()) => {}
            // The kernel has no more.
            Err(rustix::io::Errno::INVAL) => break,
            Err(errno) => return Err(step("bound the capabilities")(errno)),
        }
    }
    Ok(())
}

/// A process in a nested user namespace has all capabilities again. The seccomp filters forbid to make one too, so it is no
/// error when /proc/sys cannot be written, as in a container.
fn forbid_user_namespaces() {
    let _ = fs::write("/proc/sys/user/max_user_namespaces", "0");
}

/// Leaves the session keyring of the caller for an empty one.
fn leave_keyring() -> Result<(), JailError> {
    const KEYCTL_JOIN_SESSION_KEYRING: libc::c_int = 1;
    // SAFETY: no name is passed: a new keyring without one.
    let joined =
        unsafe { libc::syscall(libc::SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, std::ptr::null::<u8>()) };
    if joined >= 0 {
        return Ok(());
    }
    match io::Error::last_os_error().raw_os_error() {
        // A kernel without keyrings, or a container that must not use them and shares none.
        Some(libc::ENOSYS | libc::EPERM) => Ok(()),
        _ => Err(last("leave the session keyring")),
    }
}

fn limit_resources() -> Result<(), JailError> {
    let files = Rlimit { current: Some(OPEN_FILES), maximum: Some(OPEN_FILES) };
    if setrlimit(Resource::Nofile, files).is_err() {
        // Above the host's fs.nr_open, or no right to raise: what is allowed has to do.
        let allowed = getrlimit(Resource::Nofile).maximum.map(|maximum| maximum.min(OPEN_FILES));
        let files = Rlimit { current: allowed, maximum: allowed };
        setrlimit(Resource::Nofile, files).map_err(step("limit the open files"))?;
    }
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    setrlimit(Resource::Memlock, none).map_err(step("forbid locked memory"))?;
    setrlimit(Resource::Core, none).map_err(step("forbid core files"))
}
