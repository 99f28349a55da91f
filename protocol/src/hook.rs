//! Hooks: programs that are run at steps of a container's life, by the runtime on the host or by container-init in the
//! guest, in the same way.
//!
//!   state ─memory file─▶ stdin │ hook │ stdout, stderr ─pipe─▶ its last words, for the error
//!
//! A hook leads a process group of its own, and the whole group is killed at the deadline. What it writes is always
//! taken, so a flood stalls nobody; what it leaves behind in the background may keep the pipe and is not waited for.

use std::{
    collections::BTreeMap,
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
use serde::{Deserialize, Serialize};

/// Bytes of a hook's last words that are kept.
const WORDS: usize = 2048;
/// Bytes taken at once.
const CHUNK: usize = 16 << 10;
/// Chunks that a pipe holds, and one for its end.
const PIPE_CHUNKS: usize = (64 << 10) / CHUNK + 1;
/// For a hook to be gone after SIGKILL.
const KILLED: Duration = Duration::from_secs(5);

/// A program that is run at a step of a container's life.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hook {
    /// Absolute.
    pub path: String,
    /// argv with argv[0]; empty means the path alone.
    pub args: Vec<String>,
    /// Exactly its environment: `KEY=value`.
    pub env: Vec<String>,
    /// Seconds until it is killed.
    pub timeout: Option<u32>,
}

/// The startContainer hooks, and what they are told of the container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StartHooks {
    /// At least one; in order.
    pub hooks: Vec<Hook>,
    pub state: HookState,
}

/// What a hook reads on standard input: the state of runtime-spec's runtime.md, but for what changes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HookState {
    pub oci_version: String,
    pub id: String,
    pub bundle: String,
    pub annotations: BTreeMap<String, String>,
}

#[derive(Debug, thiserror::Error)]
pub enum HookError {
    #[error("start it")]
    Start { source: io::Error },
    #[error("wait for it")]
    Wait { source: io::Error },
    #[error("killed after {after:?}{}", words(.said))]
    Timeout { after: Duration, said: String },
    #[error("{status}{}", words(.said))]
    Failed { status: ExitStatus, said: String },
}

/// A hook's words are not ours: no line breaks in an error of one line.
fn words(said: &str) -> String {
    let said: Vec<&str> = said.split_whitespace().collect();
    if said.is_empty() { String::new() } else { format!(": {}", said.join(" ")) }
}

impl HookState {
    /// `pid` as the hook sees it; `None` when there is no process any more.
    pub fn json(&self, status: &str, pid: Option<u32>) -> Vec<u8> {
        let mut state = serde_json::json!({
            "ociVersion": self.oci_version,
            "id": self.id,
            "status": status,
            "bundle": self.bundle,
        });
        if let Some(pid) = pid {
            state["pid"] = pid.into();
        }
        if !self.annotations.is_empty() {
            state["annotations"] = serde_json::json!(self.annotations);
        }
        state.to_string().into_bytes()
    }
}

impl Hook {
    /// Runs it to its end, or to its timeout, or for `longest`. `prepare` may change how it is started;
    /// what it has the process do before its exec comes last.
    ///
    /// # Errors
    /// When it cannot be started, is not done in time, or fails.
    pub fn run(
        &self,
        state: &[u8],
        directory: &Path,
        longest: Duration,
        prepare: impl FnOnce(&mut Command),
    ) -> Result<(), HookError> {
        let start = |source| HookError::Start { source };
        let (mut output, theirs) = output_pipe().map_err(start)?;
        let mut command = Command::new(&self.path);
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
        let after = self.timeout.map_or(longest, |timeout| longest.min(Duration::from_secs(timeout.into())));
        let mut said = Vec::new();
        if listen(&pidfd, &mut output, Instant::now() + after, &mut said).map_err(wait)? {
            let status = child.wait().map_err(wait)?;
            let said = String::from_utf8_lossy(&said).into_owned();
            return if status.success() { Ok(()) } else { Err(HookError::Failed { status, said }) };
        }
        // The leader is not reaped yet, so the number is still that of its group.
        let _ = kill_process_group(pid, Signal::KILL);
        let gone = listen(&pidfd, &mut output, Instant::now() + KILLED, &mut said).map_err(wait)?;
        if gone {
            child.wait().map_err(wait)?;
        }
        Err(HookError::Timeout { after, said: String::from_utf8_lossy(&said).into_owned() })
    }
}

/// Takes what comes until the process ends; false at the deadline.
fn listen(pidfd: &OwnedFd, output: &mut File, deadline: Instant, said: &mut Vec<u8>) -> io::Result<bool> {
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
        // With the process gone, what it has left in the pipe is all there is to take.
        for _ in 0..if ended { PIPE_CHUNKS } else { 1 } {
            open = open && take(output, said)?;
        }
        // The deadline also counts for one that never stops talking.
        if ended || left.is_zero() {
            return Ok(ended);
        }
    }
}

/// One chunk, if there is one: false at the end of the stream.
fn take(output: &mut File, said: &mut Vec<u8>) -> io::Result<bool> {
    let mut chunk = [0; CHUNK];
    match output.read(&mut chunk) {
        Ok(0) => Ok(false),
        Ok(read) => {
            said.extend_from_slice(&chunk[..read]);
            said.drain(..said.len().saturating_sub(WORDS));
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
