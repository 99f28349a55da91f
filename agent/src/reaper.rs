//! PID 1 reaps: the one place that waits for children, our own and those the kernel hands to us as orphans.
//!
//!   SIGCHLD ──▶ waitid until nothing is left ──▶ claimed pid: its `Exit` resolves; anything else: forgotten
//!
//! Nobody else in the agent may call wait (not `Child::wait`, not tokio::process): its status would be gone. So that
//! a child that dies before its pid is known is not lost, whoever makes one holds an `Expecting` while doing so:
//!
//!   let expecting = reaper.expect_children();        // before the spawn
//!   let created = container::create(…).await?;        // may itself make short-lived helpers: they are forgotten
//!   let exit = expecting.claim(created.pid, created.pidfd.as_fd())?;
//!
//! While any `Expecting` lives, statuses of unknown pids are kept; the last one to go forgets them.

use std::{
    collections::HashMap,
    io,
    os::fd::BorrowedFd,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bulkhead_sys::pidfd::has_exited;
use rustix::process::{WaitOptions, WaitStatus, wait};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::oneshot,
};

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExitStatus {
    Code(u8),
    Signal(u8),
}

/// Waits for children. Clones share one table.
#[derive(Debug, Clone, Default)]
pub struct Reaper(Arc<Mutex<Children>>);

#[derive(Debug, Default)]
struct Children {
    claimed: HashMap<u32, oneshot::Sender<ExitStatus>>,
    /// Reaped while somebody was about to learn the pid.
    unclaimed: HashMap<u32, ExitStatus>,
    expecting: usize,
}

/// A licence to make children; see the header.
#[derive(Debug)]
pub struct Expecting(Reaper);

/// Resolves when the process has been reaped.
#[derive(Debug)]
pub struct Exit(oneshot::Receiver<ExitStatus>);

impl Exit {
    pub async fn wait(self) -> ExitStatus {
        // The sender lives in the table until it has sent: a lost one means that the process was reaped by a claim
        // for a reused pid, and such a process was killed as far as its owner is concerned.
        self.0.await.unwrap_or(ExitStatus::Signal(libc::SIGKILL as u8))
    }
}

impl Reaper {
    /// Starts to reap, in a task of its own. Call once, before the first child is made.
    pub fn start() -> io::Result<Self> {
        let mut children = signal(SignalKind::child())?;
        let reaper = Self::default();
        let worker = reaper.clone();
        tokio::spawn(async move {
            // Signals coalesce: each wake-up takes all that is there.
            while children.recv().await.is_some() {
                worker.reap_all();
            }
        });
        Ok(reaper)
    }

    pub fn expect_children(&self) -> Expecting {
        self.children().expecting += 1;
        Expecting(self.clone())
    }

    fn reap_all(&self) {
        loop {
            match wait(WaitOptions::NOHANG) {
                Ok(Some((pid, status))) => {
                    let Some(exit) = ExitStatus::from_wait(status) else { continue };
                    self.children().reaped(pid.as_raw_nonzero().get().unsigned_abs(), exit);
                }
                Err(rustix::io::Errno::INTR) => {}
                // No child is dead, or there is none at all.
                Ok(None) | Err(_) => return,
            }
        }
    }

    fn children(&self) -> MutexGuard<'_, Children> {
        // Each critical section leaves the table whole, so a panic elsewhere does not spoil it.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Expecting {
    /// The exit of one child made under this licence. `pidfd` tells a pid that died from one that was reused.
    pub fn claim(&self, pid: u32, pidfd: BorrowedFd<'_>) -> io::Result<Exit> {
        let alive = !has_exited(pidfd)?;
        // A child that is dead but not reaped yet must not be mistaken for an earlier one of the same number.
        self.0.reap_all();
        Ok(self.0.children().claim(pid, alive))
    }
}

impl Drop for Expecting {
    fn drop(&mut self) {
        let mut children = self.0.children();
        children.expecting -= 1;
        if children.expecting == 0 {
            children.unclaimed.clear();
        }
    }
}

impl Children {
    fn reaped(&mut self, pid: u32, exit: ExitStatus) {
        if let Some(owner) = self.claimed.remove(&pid) {
            // The owner may have gone; nobody else wants the status.
            let _ = owner.send(exit);
        } else if self.expecting > 0 {
            self.unclaimed.insert(pid, exit);
        }
    }

    fn claim(&mut self, pid: u32, alive: bool) -> Exit {
        let (sender, receiver) = oneshot::channel();
        match self.unclaimed.remove(&pid) {
            Some(exit) if !alive => {
                let _ = sender.send(exit);
            }
            // Alive: what was kept belonged to an earlier process of the same number.
            Some(_) | None => {
                self.claimed.insert(pid, sender);
            }
        }
        Exit(receiver)
    }
}

impl ExitStatus {
    fn from_wait(status: WaitStatus) -> Option<Self> {
        let low_byte = |value: i32| (value & 0xff) as u8;
        match (status.exit_status(), status.terminating_signal()) {
            (Some(code), _) => Some(Self::Code(low_byte(code))),
            (None, Some(signal)) => Some(Self::Signal(low_byte(signal))),
            (None, None) => None,
        }
    }
}

#[cfg(test)]
mod tests;
