//! A process that outlives the command that made it, named so that a recycled pid is never taken for it.
//!
//! A pid alone names whoever has it now; with the start time of `/proc/<pid>/stat` it names one process for the
//! uptime of the machine. Signals go through a pidfd that was checked after it was opened.

use std::{
    fmt, io,
    os::fd::OwnedFd,
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
    process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal},
};
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Process {
    pub pid: u32,
    /// Clock ticks from boot to its start.
    pub start_ticks: u64,
}

impl fmt::Display for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "process {}", self.pid)
    }
}

impl Process {
    pub fn current() -> io::Result<Self> {
        // By /proc and not by getpid: a proxy is pid 1 of its own namespace, and the host's pid is meant.
        let pid = std::fs::read_link("/proc/self")?;
        let pid = pid.to_str().and_then(|pid| pid.parse().ok()).ok_or(io::ErrorKind::InvalidData)?;
        Self::of(pid)
    }

    /// The process that has `pid` now.
    pub fn of(pid: u32) -> io::Result<Self> {
        Ok(Self { pid, start_ticks: Stat::of(pid)?.start_ticks })
    }

    /// One that had `pid` and has ended: it is never alive, whoever has the pid next.
    pub fn ended(pid: u32) -> Self {
        Self { pid, start_ticks: u64::MAX }
    }

    /// False also for a zombie: nothing of it can be signalled or runs.
    pub fn is_alive(&self) -> bool {
        matches!(Stat::of(self.pid), Ok(stat) if stat.start_ticks == self.start_ticks && stat.is_alive())
    }

    /// `None` when it is gone.
    pub fn hold(&self) -> io::Result<Option<Held>> {
        let Some(pid) = i32::try_from(self.pid).ok().and_then(Pid::from_raw) else { return Ok(None) };
        match pidfd_open(pid, PidfdFlags::empty()) {
            // If the start time fits now, the descriptor, opened before, names this process too.
            Ok(pidfd) => Ok(self.is_alive().then_some(Held { process: *self, pidfd })),
            // EINVAL: found, but reaped before the kernel looked for its task.
            Err(Errno::SRCH | Errno::INVAL) => Ok(None),
            Err(errno) => Err(errno.into()),
        }
    }

    /// `None` when it is gone.
    pub fn pidfd(&self) -> io::Result<Option<OwnedFd>> {
        Ok(self.hold()?.map(|held| held.pidfd))
    }

    /// SIGKILL, without waiting.
    pub fn kill(&self) -> io::Result<()> {
        self.hold()?.map_or(Ok(()), |held| held.kill())
    }

    /// True when it has ended before the deadline.
    pub fn wait(&self, deadline: Instant) -> io::Result<bool> {
        self.hold()?.map_or(Ok(true), |held| held.wait(deadline))
    }
}

/// A process and a descriptor of it, which names it whatever becomes of its pid.
#[derive(Debug)]
pub struct Held {
    pub process: Process,
    pidfd: OwnedFd,
}

impl Held {
    /// Of the process.
    pub fn pidfd(&self) -> &OwnedFd {
        &self.pidfd
    }

    /// The pid of its parent. `None` when it has ended.
    pub fn parent(&self) -> io::Result<Option<u32>> {
        let stat = Stat::of(self.process.pid);
        // Whatever was read was of this process if that still runs: until then nobody else has its pid.
        if self.wait(Instant::now())? { Ok(None) } else { Ok(Some(stat?.parent)) }
    }

    /// Whether a signal has stopped it; a debugger's stop is another one (proc_pid_stat(5): `T`, not `t`). False when it has ended.
    pub fn is_stopped(&self) -> bool {
        let stopped = matches!(Stat::of(self.process.pid), Ok(stat) if stat.state == b'T');
        // As in `parent`.
        stopped && matches!(self.wait(Instant::now()), Ok(false))
    }

    /// SIGKILL, without waiting; one that has ended is as good.
    pub fn kill(&self) -> io::Result<()> {
        match pidfd_send_signal(&self.pidfd, Signal::KILL) {
            Ok(()) | Err(Errno::SRCH) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }

    /// True when it has ended before the deadline.
    pub fn wait(&self, deadline: Instant) -> io::Result<bool> {
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let mut fds = [PollFd::new(&self.pidfd, PollFlags::IN)];
            match poll(&mut fds, Some(&timespec(left))) {
                Ok(0) => return Ok(false),
                Ok(_) => return Ok(true),
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }
}

fn timespec(duration: Duration) -> Timespec {
    Timespec {
        tv_sec: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: duration.subsec_nanos().into(),
    }
}

/// Of `/proc/<pid>/stat` (proc_pid_stat(5)).
#[derive(Debug, PartialEq, Eq)]
struct Stat {
    state: u8,
    parent: u32,
    start_ticks: u64,
}

impl Stat {
    fn of(pid: u32) -> io::Result<Self> {
        let text = std::fs::read(format!("/proc/{pid}/stat"))?;
        Self::parse(&text)
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "unexpected /proc/PID/stat"))
    }

    /// Fields 3, 4 and 22. The second field, the name, may hold anything, `)` included.
    fn parse(text: &[u8]) -> Option<Self> {
        let name_end = text.iter().rposition(|&b| b == b')')?;
        let rest = std::str::from_utf8(text.get(name_end + 1..)?).ok()?;
        let mut fields = rest.split_ascii_whitespace();
        let state = *fields.next()?.as_bytes().first()?;
        let parent = fields.next()?.parse().ok()?;
        let start_ticks = fields.nth(17)?.parse().ok()?;
        Some(Self { state, parent, start_ticks })
    }

    fn is_alive(&self) -> bool {
        !b"ZX".contains(&self.state)
    }
}

#[cfg(test)]
mod tests;
