//! The host as a test has found it: its mounts, a process that is nobody's business, its clock. However a pod ends, they are
//! as before.
//!
//! Tests run side by side, and some of them mount. So each test's thread has a mount namespace of its own, in which all mounts are
//! shared, as systemd and the lab have them; `bulkhead` is started in it and takes it for the host's.

use std::{
    cell::Cell,
    fs,
    process::{Child, Command, Stdio},
    time::Duration,
};

use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
    time::{ClockId, clock_gettime},
};

/// What the clock may have been adjusted meanwhile by whoever keeps it right.
const SLEW: Duration = Duration::from_secs(1);
/// `ip netns` mounts this directory on itself when it first needs it, and leaves it so.
const NETNS: &str = "/run/netns";

#[derive(Debug)]
pub(super) struct Found {
    mounts: Vec<String>,
    bystander: Child,
    clock: Duration,
}

impl Found {
    pub(super) fn now() -> Self {
        own_mounts();
        let bystander = Command::new("sleep").arg("infinity").stdin(Stdio::null()).spawn();
        Self { mounts: mounts(), bystander: bystander.expect("spawn a bystander"), clock: clock() }
    }

    /// What is different now.
    pub(super) fn changes(&mut self) -> Vec<String> {
        let mut changes = difference(&self.mounts, &mounts());
        if let Some(status) = self.bystander.try_wait().expect("look at the bystander") {
            changes.push(format!("a process of the host has ended: {status}"));
        }
        let moved = self.clock.abs_diff(clock());
        if moved > SLEW {
            changes.push(format!("the host's clock was moved by {moved:?}"));
        }
        changes
    }
}

impl Drop for Found {
    fn drop(&mut self) {
        let _ = self.bystander.kill();
        let _ = self.bystander.wait();
    }
}

/// Gives this thread, and all that it starts, a mount namespace whose mounts are shared with nobody outside of it.
pub(super) fn own_mounts() {
    thread_local!(static DONE: Cell<bool> = const { Cell::new(false) });
    if DONE.replace(true) {
        return;
    }
    unshare(CloneFlags::CLONE_NEWNS).expect("a mount namespace, which takes root");
    for kind in [MsFlags::MS_PRIVATE, MsFlags::MS_SHARED] {
        mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | kind, None::<&str>)
            .expect("all mounts shared");
    }
}

/// The lines of this thread's mountinfo (proc_pid_mountinfo(5)), without the last field: the options of a filesystem are not
/// the mount's, and crun changes those of the cgroup2 that all share.
pub(super) fn mounts() -> Vec<String> {
    let text = fs::read_to_string("/proc/thread-self/mountinfo").expect("mountinfo");
    let lines = text.lines().filter(|line| line.split(' ').nth(4) != Some(NETNS));
    lines.map(|line| line.rsplit_once(' ').map_or(line, |(mount, _)| mount).to_owned()).collect()
}

pub(super) fn difference(before: &[String], after: &[String]) -> Vec<String> {
    let only = |these: &[String], those: &[String], word: &str| -> Vec<String> {
        these
            .iter()
            .filter(|line| !those.contains(line))
            .map(|line| format!("mount {word}: {line}"))
            .collect()
    };
    [only(before, after, "gone"), only(after, before, "new")].concat()
}

/// How far wall clock and uptime are apart: what setting the clock changes, and time does not.
fn clock() -> Duration {
    let at = |clock| Duration::from(clock_gettime(clock).expect("a clock"));
    at(ClockId::CLOCK_REALTIME).saturating_sub(at(ClockId::CLOCK_BOOTTIME))
}
