//! One process of a container, from the moment its pid is known: signals by pidfd, window size, and its exit.
//!
//!   Reaper ─▶ supervise ─(kill what is left, for an init)─▶ Io::finish ─▶ `Exited`, kept for whoever waits, and again
//!
//! The exit is announced once the byte count of each stream is fixed; it never waits for the reader of a pipe.

pub mod list;

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    sync::Arc,
};

use bulkhead_sys::pidfd::has_exited;
use rustix::process::{Signal, pidfd_send_signal};
use tokio::sync::watch;

use crate::{
    container::Running,
    reaper::{Exit, ExitStatus},
    say,
    stdio::{Counts, Io, Tty},
};

/// How a process ended and what it leaves in its streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exited {
    pub status: ExitStatus,
    pub counts: Counts,
    /// The container's cgroup has counted an out-of-memory kill.
    pub oom_killed: bool,
}

/// What a process is to its container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// With it the container ends: what else runs in it is killed.
    Init,
    Exec,
}

#[derive(Debug)]
pub struct Process {
    pub pid: u32,
    pidfd: OwnedFd,
    tty: Option<Tty>,
    exited: watch::Receiver<Option<Exited>>,
}

impl Process {
    /// Takes a process over: from here on its exit is seen and its stdio runs.
    pub fn supervise(
        pid: u32,
        pidfd: OwnedFd,
        exit: Exit,
        (io, tty): (Io, Option<Tty>),
        container: Arc<Running>,
        role: Role,
    ) -> Self {
        let (announce, exited) = watch::channel(None);
        tokio::spawn(async move {
            let status = exit.wait().await;
            if role == Role::Init
                && let Err(error) = container.cgroup.kill_all()
            {
                say!("{}: kill the cgroup of an exited container: {error}", container.id);
            }
            let counts = io.finish().await;
            let oom_killed = container.cgroup.oom_kills().is_ok_and(|kills| kills > 0);
            announce.send_replace(Some(Exited { status, counts, oom_killed }));
        });
        Self { pid, pidfd, tty, exited }
    }

    /// `None` while it runs, or while its streams are being counted.
    pub fn exited(&self) -> Option<Exited> {
        *self.exited.borrow()
    }

    /// Resolves at the exit, at once if that was earlier. Borrows nothing: may outlive the process's table entry.
    pub fn wait(&self) -> impl Future<Output = Option<Exited>> + Send + use<> {
        let mut exited = self.exited.clone();
        async move {
            // The sender lives until it has sent, unless the agent is shutting down.
            exited.wait_for(Option::is_some).await.ok().and_then(|exited| *exited)
        }
    }

    /// ESRCH when it has exited. Signal 0 only asks, and knows of an exit that is not announced yet.
    pub fn signal(&self, signal: SignalNumber) -> io::Result<()> {
        match signal.0 {
            None if self.exited().is_some() || has_exited(&self.pidfd)? => {
                Err(rustix::io::Errno::SRCH.into())
            }
            None => Ok(()),
            Some(signal) => Ok(pidfd_send_signal(self.pidfd.as_fd(), signal)?),
        }
    }

    pub fn resize(&self, columns: u16, rows: u16) -> io::Result<()> {
        match &self.tty {
            Some(tty) => tty.resize(columns, rows),
            None => Err(io::ErrorKind::NotConnected.into()),
        }
    }
}

/// A signal of the guest's kernel, 0 to 64.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SignalNumber(Option<Signal>);

impl SignalNumber {
    pub const KILL: Self = Self(Some(Signal::KILL));

    pub fn new(number: u32) -> Option<Self> {
        match i32::try_from(number).ok()? {
            0 => Some(Self(None)),
            number @ 1..=64 => {
                // SAFETY: real-time signals 32 and 33 are the C library's own for threads; here a number is only
                // passed to another process by pidfd_send_signal or kill, never installed or raised in this one.
                Some(Self(Some(unsafe { Signal::from_raw_unchecked(number) })))
            }
            _ => None,
        }
    }

    /// For kill(2); `None` is signal 0.
    pub fn get(self) -> Option<Signal> {
        self.0
    }
}

#[cfg(test)]
mod tests;
