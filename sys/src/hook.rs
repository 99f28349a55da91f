//! Runs hooks: programs at steps of a container's life, started by the runtime on the host or by container-init in the
//! guest, in the same way.
//!
//!   state ─memory file─▶ stdin │ hook │ stdout, stderr ─pipe─▶ the end of its output, for the error
//!
//! A hook leads a process group of its own, and the whole group is killed at the deadline. Its output is always read, so
//! a flood stalls nobody; what it leaves behind in the background may keep the pipe and is not waited for.

use std::{
    fs::File,
    io::{self, Read as _, Seek as _, Write as _},
    os::{fd::OwnedFd, unix::process::CommandExt as _},
    path::Path,
    process::{Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::{MemfdFlags, memfd_create},
    pipe::{PipeFlags, pipe_with},
    process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open, set_parent_process_death_signal},
};

/// Bytes of a hook's output that are kept.
const OUTPUT: usize = 2048;
/// Bytes read at once.
const CHUNK: usize = 16 << 10;
/// Chunks that a pipe holds, and one for its end.
const PIPE_CHUNKS: usize = (64 << 10) / CHUNK + 1;
/// For a hook to be gone after SIGKILL.
const KILLED: Duration = Duration::from_secs(5);

/// A program to run at a step of a container's life.
#[derive(Debug, Clone, Copy)]
pub struct Hook<'a> {
    /// Absolute.
    pub path: &'a str,
    /// argv with argv[0]; empty means the path alone.
    pub args: &'a [String],
    /// Exactly its environment: `KEY=value`.
    pub env: &'a [String],
    /// Until it is killed.
    pub timeout: Duration,
}

/// Why a hook did not do its work. The caller names the hook.
#[derive(Debug, thiserror::Error)]
pub enum HookError {
    #[error("start the hook")]
    Start { source: io::Error },
    #[error("wait for the hook")]
    Wait { source: io::Error },
    #[error("the hook was killed after {after:?}{}", quote(.output))]
    Timeout { after: Duration, output: String },
    #[error("{status}{}", quote(.output))]
    Failed { status: ExitStatus, output: String },
}

/// The output of a hook is not ours: no line breaks in an error of one line.
fn quote(output: &str) -> String {
    let words: Vec<&str> = output.split_whitespace().collect();
    if words.is_empty() { String::new() } else { format!(": {}", words.join(" ")) }
}

impl Hook<'_> {
    /// Runs it to its end, or to its timeout, with `state` as standard input. `prepare` may change how it is started; a
    /// `pre_exec` of its comes last before the exec.
    ///
    /// # Errors
    /// When it cannot be started, does not end in time, or exits with another status than 0.
    pub fn run(
        &self,
        state: &[u8],
        directory: &Path,
        prepare: impl FnOnce(&mut Command),
    ) -> Result<(), HookError> {
        let start = |source| HookError::Start { source };
        let (mut output, theirs) = output_pipe().map_err(start)?;
        let mut command = Command::new(self.path);
        if let Some((name, arguments)) = self.args.split_first() {
            command.arg0(name).args(arguments);
        }
        command
            .env_clear()
            .envs(self.env.iter().filter_map(|variable| variable.split_once('=')))
            .current_dir(directory)
            .stdin(Stdio::from(memory_file(state).map_err(start)?))
            .stdout(theirs.try_clone().map_err(start)?)
            .stderr(theirs)
            .process_group(0);
        // SAFETY: prctl is a plain system call: nothing is allocated and no lock is taken between fork and exec.
        unsafe {
            command.pre_exec(|| Ok(set_parent_process_death_signal(Some(Signal::KILL))?));
        }
        prepare(&mut command);
        let mut child = command.spawn().map_err(start)?;
        // Our copies of the child's ends: with them the pipe would never end.
        drop(command);
        let wait = |source| HookError::Wait { source };
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        let pid = pid.ok_or_else(|| wait(io::ErrorKind::InvalidData.into()))?;
        let pidfd = pidfd_open(pid, PidfdFlags::empty()).map_err(|errno| wait(errno.into()))?;
        let after = self.timeout;
        let mut kept = Vec::new();
        if read_until_exit(&pidfd, &mut output, Instant::now() + after, &mut kept).map_err(wait)? {
            let status = child.wait().map_err(wait)?;
            let output = String::from_utf8_lossy(&kept).into_owned();
            return if status.success() { Ok(()) } else { Err(HookError::Failed { status, output }) };
        }
        // The leader is not reaped yet, so the number is still that of its group.
        let _ = kill_process_group(pid, Signal::KILL);
        let gone = read_until_exit(&pidfd, &mut output, Instant::now() + KILLED, &mut kept).map_err(wait)?;
        if gone {
            child.wait().map_err(wait)?;
        }
        Err(HookError::Timeout { after, output: String::from_utf8_lossy(&kept).into_owned() })
    }
}

/// Reads what comes until the process ends; false at the deadline.
fn read_until_exit(
    pidfd: &OwnedFd,
    output: &mut File,
    deadline: Instant,
    kept: &mut Vec<u8>,
) -> io::Result<bool> {
    let mut open = true;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = Timespec {
            tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: left.subsec_nanos().into(),
        };
        let mut fds = vec![PollFd::new(pidfd, PollFlags::IN)];
        if open {
            fds.push(PollFd::new(output, PollFlags::IN));
        }
        match poll(&mut fds, Some(&timeout)) {
            Ok(0) => return Ok(false),
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        let ended = !fds[0].revents().is_empty();
        drop(fds);
        // With the process gone, what is left in the pipe is all there is to read.
        for _ in 0..if ended { PIPE_CHUNKS } else { 1 } {
            open = open && read_chunk(output, kept)?;
        }
        // The deadline also counts for one that writes without end.
        if ended || left.is_zero() {
            return Ok(ended);
        }
    }
}

/// One chunk, if there is one: false at the end of the stream.
fn read_chunk(output: &mut File, kept: &mut Vec<u8>) -> io::Result<bool> {
    let mut chunk = [0; CHUNK];
    match output.read(&mut chunk) {
        Ok(0) => Ok(false),
        Ok(read) => {
            kept.extend_from_slice(&chunk[..read]);
            kept.drain(..kept.len().saturating_sub(OUTPUT));
            Ok(true)
        }
        Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {
            Ok(true)
        }
        Err(error) => Err(error),
    }
}

/// A file and not a pipe: a hook that does not read its state keeps nobody waiting.
fn memory_file(bytes: &[u8]) -> io::Result<OwnedFd> {
    let mut file = File::from(memfd_create("state", MemfdFlags::CLOEXEC)?);
    file.write_all(bytes)?;
    file.rewind()?;
    Ok(file.into())
}

fn output_pipe() -> io::Result<(File, OwnedFd)> {
    let (ours, theirs) = pipe_with(PipeFlags::CLOEXEC)?;
    rustix::io::ioctl_fionbio(&ours, true)?;
    Ok((ours.into(), theirs))
}

#[cfg(test)]
mod tests;
