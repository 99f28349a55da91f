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
        let (start_ticks, _) = stat(pid)?;
        Ok(Self { pid, start_ticks })
    }

    /// False also for a zombie: nothing of it can be signalled or runs.
    pub fn is_alive(&self) -> bool {
        matches!(stat(self.pid), Ok((start, state)) if start == self.start_ticks && !b"ZX".contains(&state))
    }

    /// `None` when it is gone.
    pub fn pidfd(&self) -> io::Result<Option<OwnedFd>> {
        let Some(pid) = i32::try_from(self.pid).ok().and_then(Pid::from_raw) else { return Ok(None) };
        match pidfd_open(pid, PidfdFlags::empty()) {
            // If the start time fits now, the descriptor, opened before, names this process too.
            Ok(fd) => Ok(self.is_alive().then_some(fd)),
            // EINVAL: found, but reaped before the kernel looked for its task.
            Err(Errno::SRCH | Errno::INVAL) => Ok(None),
            Err(errno) => Err(errno.into()),
        }
    }

    /// SIGKILL, without waiting.
    pub fn kill(&self) -> io::Result<()> {
        let Some(pidfd) = self.pidfd()? else { return Ok(()) };
        match pidfd_send_signal(&pidfd, Signal::KILL) {
            Ok(()) | Err(Errno::SRCH) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }

    /// True when it has ended before the deadline.
    pub fn wait(&self, deadline: Instant) -> io::Result<bool> {
        let Some(pidfd) = self.pidfd()? else { return Ok(true) };
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let mut fds = [PollFd::new(&pidfd, PollFlags::IN)];
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

/// Start time and state letter: fields 22 and 3. The second field, the name, may hold anything, `)` included.
fn stat(pid: u32) -> io::Result<(u64, u8)> {
    let text = std::fs::read(format!("/proc/{pid}/stat"))?;
    parse_stat(&text).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "unexpected /proc/PID/stat"))
}

fn parse_stat(text: &[u8]) -> Option<(u64, u8)> {
    let name_end = text.iter().rposition(|&b| b == b')')?;
    let rest = std::str::from_utf8(text.get(name_end + 1..)?).ok()?;
    let mut fields = rest.split_ascii_whitespace();
    let state = *fields.next()?.as_bytes().first()?;
    let start = fields.nth(18)?.parse().ok()?;
    Some((start, state))
}

#[cfg(test)]
mod tests;
