//! Runs the command line's own commands: a container that containerd asks for is made as any other.

use std::{
    ffi::OsString,
    fs::{self, File},
    io::{self, Read as _},
    os::{fd::OwnedFd, unix::process::CommandExt as _},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use bulkhead_sys::text::printable;
use serde::Deserialize;
use tokio::time::timeout;

use super::reaper::Reaper;
use crate::store;

/// Bytes of a log that are looked at for the error.
const LOG_MAX: u64 = 1 << 20;

#[derive(Debug, thiserror::Error)]
pub(super) enum CommandError {
    #[error("run bulkhead")]
    Spawn(#[source] io::Error),
    /// In its own words.
    #[error("{message}")]
    Failed { message: String },
    #[error("bulkhead did not end within {waited:?}")]
    Silent { waited: Duration },
}

/// The command line's program, which this one is by another name.
pub(super) fn bulkhead() -> Command {
    let mut command = Command::new("/proc/self/exe");
    command.arg0("bulkhead");
    command
}

/// The standard streams of a command, which become those of the process that it makes.
#[derive(Debug)]
pub(super) struct Streams {
    pub(super) stdin: Option<OwnedFd>,
    pub(super) stdout: Option<OwnedFd>,
    pub(super) stderr: Option<OwnedFd>,
}

impl Streams {
    pub(super) fn none() -> Self {
        Self { stdin: None, stdout: None, stderr: None }
    }
}

/// The commands for the containers of one namespace.
#[derive(Debug, Clone)]
pub(super) struct Commands {
    pub(super) namespace: String,
    pub(super) root: PathBuf,
    pub(super) debug: bool,
    pub(super) reaper: Reaper,
}

impl Commands {
    /// Runs `bulkhead ARGUMENTS` to its end. Its log goes to a file in `directory`, for its error.
    ///
    /// # Errors
    /// It cannot be run, fails, or does not end in time; then it is killed, and its server undoes what it had begun.
    pub(super) async fn run(
        &self,
        arguments: Vec<OsString>,
        streams: Streams,
        directory: &Path,
        patience: Duration,
    ) -> Result<(), CommandError> {
        let log = tempfile::Builder::new().prefix("bulkhead-").suffix(".log").tempfile_in(directory);
        let log = log.map_err(CommandError::Spawn)?.into_temp_path();
        let mut process = bulkhead();
        process.arg("--root").arg(&self.root).arg("--log").arg(&log);
        process.args(["--log-format", "json"]);
        if self.debug {
            process.arg("--debug");
        }
        let stdio = |stream: Option<OwnedFd>| stream.map_or_else(Stdio::null, Stdio::from);
        process.args(arguments).current_dir(directory);
        process.stdin(stdio(streams.stdin)).stdout(stdio(streams.stdout)).stderr(stdio(streams.stderr));
        let mut child = process.spawn().map_err(CommandError::Spawn)?;
        let exit = self.reaper.of_new(child.id());
        // It holds the streams.
        drop(process);
        match timeout(patience, exit).await {
            Ok(Ok(0)) => Ok(()),
            Ok(status) => {
                let unsaid = || format!("bulkhead ended with {}", status.map_or(-1, i32::from));
                let message = last_error(&log).unwrap_or_else(unsaid);
                Err(CommandError::Failed { message: printable(&message).into_owned() })
            }
            Err(_) => {
                let _ = child.kill();
                Err(CommandError::Silent { waited: patience })
            }
        }
    }
}

#[derive(Debug, Deserialize)]
struct Entry {
    level: String,
    msg: String,
}

/// The last error of a log in JSON.
fn last_error(path: &Path) -> Option<String> {
    let mut text = String::new();
    File::open(path).ok()?.take(LOG_MAX).read_to_string(&mut text).ok()?;
    let mut entries = text.lines().filter_map(|line| serde_json::from_str::<Entry>(line).ok());
    entries.rfind(|entry| entry.level == "error").map(|entry| entry.msg)
}

/// The process whose pid a command has written. A short exec may have ended and been reaped by now: its exit is still to be had
/// by its pid.
///
/// # Errors
/// No pid is written, or the process cannot be looked at.
pub(super) fn read_process(path: &Path) -> io::Result<store::Process> {
    let pid = fs::read_to_string(path)?.trim().parse().map_err(io::Error::other)?;
    match store::Process::of(pid) {
        Err(error)
            if error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(libc::ESRCH) =>
        {
            Ok(store::Process::ended(pid))
        }
        found => found,
    }
}

#[cfg(test)]
mod tests;
