//! Takes the exits of this process's children, and of those that its children leave behind: the proxies, which callers wait for,
//! and servers.
//!
//!   SIGCHLD ─▶ wait4(-1) ─▶ who asked for this pid hears; of others the last few are kept, for who asks a moment later

use std::{
    collections::{BTreeMap, VecDeque},
    io,
    sync::{Arc, Mutex, PoisonError},
};

use rustix::process::{Pid, WaitOptions, WaitStatus, wait};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::oneshot,
};

/// Exits that nobody has asked for yet. A proxy is asked for as soon as its pid is read.
const KEPT: usize = 64;

#[derive(Debug, Default)]
struct Exits {
    asked: BTreeMap<u32, oneshot::Sender<Status>>,
    kept: VecDeque<(u32, Status)>,
}

/// As a shell has it: the exit code, or 128 and the signal.
pub(super) type Status = u8;

#[derive(Debug, Clone, Default)]
pub(super) struct Reaper(Arc<Mutex<Exits>>);

impl Reaper {
    /// Begins to reap, and takes over what descendants leave behind.
    ///
    /// # Errors
    /// As prctl(2), or no signal can be taken.
    pub(super) fn start() -> io::Result<Self> {
        rustix::process::set_child_subreaper(Pid::from_raw(1))?;
        let mut children = signal(SignalKind::child())?;
        let reaper = Self::default();
        let reaping = reaper.clone();
        tokio::spawn(async move {
            loop {
                reaping.reap();
                if children.recv().await.is_none() {
                    return;
                }
            }
        });
        Ok(reaper)
    }

    fn reap(&self) {
        while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
            let Some(status) = code(status) else { continue };
            let pid = pid.as_raw_nonzero().get().unsigned_abs();
            let mut exits = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            match exits.asked.remove(&pid) {
                // Who asked may be gone.
                Some(asked) => drop(asked.send(status)),
                None => {
                    exits.kept.push_back((pid, status));
                    if exits.kept.len() > KEPT {
                        exits.kept.pop_front();
                    }
                }
            }
        }
    }

    /// The exit of a child that was just started. Not to be asked for after an await: the exit may have been taken for that of
    /// an older process with its pid.
    pub(super) fn of_new(&self, pid: u32) -> oneshot::Receiver<Status> {
        let mut exits = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        exits.kept.retain(|(kept, _)| *kept != pid);
        let (sender, receiver) = oneshot::channel();
        exits.asked.insert(pid, sender);
        receiver
    }

    /// The exit of a descendant, which may have come already.
    pub(super) fn of(&self, pid: u32) -> oneshot::Receiver<Status> {
        let mut exits = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (sender, receiver) = oneshot::channel();
        match exits.kept.iter().position(|(kept, _)| *kept == pid).and_then(|at| exits.kept.remove(at)) {
            Some((_, status)) => drop(sender.send(status)),
            None => drop(exits.asked.insert(pid, sender)),
        }
        receiver
    }
}

fn code(status: WaitStatus) -> Option<Status> {
    let code = status.exit_status().or_else(|| Some(128 + status.terminating_signal()?))?;
    Some(u8::try_from(code).unwrap_or(Status::MAX))
}
