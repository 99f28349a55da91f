//! What is left to a thread of the VMM while the guest runs: the system calls of its list, and few capabilities.
//!
//!   build.rs: lists ─seccompiler─▶ filters, constants of this program
//!   main: `prepare` ─▶ jail ─▶ threads, each `enter`s and waits ─▶ main `enter`s ─▶ the vCPUs run
//!   a call without a rule ─SIGSYS─▶ `report` ─▶ Event::Exited to the server, the process ends
//!
//! The kernel refuses the call before it raises the signal, and none of the lists has sigaction: whoever took over a
//! thread may keep the process from ending by corrupting it further, but never gets the call. No list can make a thread
//! or a process either: all threads are there before the first guest byte.

pub mod lists;
mod names;
mod report;

use std::io;

use rustix::thread::{CapabilitySet, CapabilitySets};

pub(crate) use self::report::watch;
pub use self::{
    lists::Kind,
    report::{end, prepare},
};

/// The filters by kind.
mod filters {
    include!(concat!(env!("OUT_DIR"), "/filters.rs"));

    pub(super) fn of(kind: super::Kind) -> &'static [libc::sock_filter] {
        match kind {
            super::Kind::Control => &CONTROL,
            super::Kind::Devices => &DEVICES,
            super::Kind::Vcpu => &VCPU,
            super::Kind::Files => &FILES,
            super::Kind::Locks => &LOCKS,
            super::Kind::Disks => &DISKS,
        }
    }
}

#[derive(Debug, thiserror::Error)]
#[error("confine the thread {thread}: {step}")]
pub struct ConfineError {
    thread: String,
    step: &'static str,
    source: io::Error,
}

/// Confines the calling thread for good. `thread` is its name in messages: letters and digits. Only file workers keep
/// the capabilities that the jail left.
///
/// # Errors
/// The kernel refuses a step. The thread may have lost its capabilities then, and has no filter.
pub fn enter(kind: Kind, thread: &str) -> Result<(), ConfineError> {
    let failed = |step| move |source: io::Error| ConfineError { thread: thread.to_owned(), step, source };
    // Tests of devices run in threads of theirs, and a filter without a handler would say nothing.
    #[cfg(test)]
    prepare().map_err(failed("install the signal handlers"))?;
    report::name_thread(thread);
    // `make fuzz` runs devices with a sanitizer, which makes system calls of its own in every thread.
    if cfg!(fuzzing) {
        return Ok(());
    }
    if kind != Kind::Files {
        let none = CapabilitySets {
            effective: CapabilitySet::empty(),
            permitted: CapabilitySet::empty(),
            inheritable: CapabilitySet::empty(),
        };
        rustix::thread::set_capabilities(None, none)
            .map_err(|errno| failed("drop its capabilities")(errno.into()))?;
    }
    // Without it only a privileged thread may take a filter.
    rustix::thread::set_no_new_privs(true).map_err(|errno| failed("set no_new_privs")(errno.into()))?;
    install(filters::of(kind)).map_err(failed("install its seccomp filter"))
}

fn install(filter: &'static [libc::sock_filter]) -> io::Result<()> {
    let program = libc::sock_fprog {
        // A kernel takes 4096 at most, which seccompiler has checked.
        len: filter.len() as libc::c_ushort,
        // The kernel reads it only.
        filter: filter.as_ptr().cast_mut(),
    };
    // SAFETY: `program` names `len` instructions that live as long as the process; the kernel copies them. What the
    // filter then does to this thread's system calls is the purpose.
    let done = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            // No code of others runs in this process, so it has nothing to fear from speculation in it. Kernels since 5.16
            // take this for granted; on older ones a filter would slow the thread down.
            libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW,
            &raw const program,
        )
    };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests;
