//! The streams of `exec` and `attach`, between this process's own and those of a container.
//!
//! ```text
//!  stdin ─▶ stream "stdin"        its end goes along
//!  stdout, stderr ◀─ streams "stdout", "stderr"
//!  SIGWINCH ─▶ stream "resize": {"Width": columns, "Height": rows}
//!  how it ended ◀─ stream "error": a Status of Kubernetes, or nothing
//! ```

use std::{
    io::{self, Read, Write},
    os::fd::AsFd as _,
    thread,
};

use nix::sys::signalfd::SignalFd;
use rustix::event::{PollFd, PollFlags, poll};
use serde::Deserialize;
use serde_json::json;

use super::spdy::{Connection, Incoming, Outgoing, SpdyError};
use crate::lab::terminal::{self, Raw};

/// Of Kubernetes' remote commands: the first that tells the exit code apart.
const PROTOCOL: &str = "v4.channel.k8s.io";

#[derive(Debug, thiserror::Error)]
pub enum StreamsError {
    #[error(transparent)]
    Spdy(#[from] SpdyError),
    #[error("tty=true must be specified with interactive=true")]
    NotInteractive,
    #[error("input is not a terminal")]
    NoTerminal(#[source] io::Error),
    #[error("copy {stream}")]
    Copy { stream: &'static str, source: io::Error },
    #[error("read how it ended: {text:?}")]
    Status { text: String, source: serde_json::Error },
    #[error("command terminated with exit code {0}")]
    Exit(String),
    #[error("error executing command: {0}")]
    Failed(String),
}

/// Which of the streams there are.
#[derive(Debug, Clone, Copy)]
pub struct Wanted {
    pub stdin: bool,
    /// Outputs are one then.
    pub tty: bool,
}

/// Kubernetes' metav1.Status, as far as it is looked at.
#[derive(Debug, Deserialize)]
struct Status {
    status: String,
    #[serde(default)]
    message: String,
    #[serde(default)]
    reason: String,
    #[serde(default)]
    details: Details,
}

#[derive(Debug, Default, Deserialize)]
struct Details {
    #[serde(default)]
    causes: Vec<Cause>,
}

#[derive(Debug, Deserialize)]
struct Cause {
    reason: String,
    message: String,
}

/// Copies until the server has no more output.
///
/// # Errors
/// There are no streams, or the command failed, or a container has none to attach to.
pub fn copy(url: &str, wanted: Wanted) -> Result<(), StreamsError> {
    if wanted.tty && !wanted.stdin {
        return Err(StreamsError::NotInteractive);
    }
    // Before there are threads.
    let changes = wanted.tty.then(terminal::size_changes).transpose().map_err(StreamsError::NoTerminal)?;
    let _raw = wanted.tty.then(Raw::stdin).transpose().map_err(StreamsError::NoTerminal)?;
    let connection = Connection::open(url, PROTOCOL)?;
    let stream = |kind| connection.stream(&[("streamtype", kind)]);
    let (_, mut error) = stream("error")?;
    let stdin = wanted.stdin.then(|| stream("stdin")).transpose()?;
    let (_, stdout) = stream("stdout")?;
    let stderr = if wanted.tty { None } else { Some(stream("stderr")?.1) };
    if let Some(changes) = changes {
        let (resize, _) = stream("resize")?;
        thread::spawn(move || follow(&changes, resize));
    }
    if let Some((outgoing, _)) = stdin {
        // It may wait for input when all is over, so nobody waits for it.
        thread::spawn(move || feed(outgoing));
    }
    let shown = thread::spawn(move || stderr.map_or(Ok(0), |stderr| show(stderr, io::stderr())));
    let copied = |stream| move |source| StreamsError::Copy { stream, source };
    show(stdout, io::stdout()).map_err(copied("stdout"))?;
    shown
        .join()
        .unwrap_or_else(|_| Err(io::Error::other("the thread panicked")))
        .map_err(copied("stderr"))?;
    let mut text = String::new();
    error.read_to_string(&mut text).map_err(copied("the error"))?;
    ended(&text)
}

/// What the stream "error" says at the end.
fn ended(text: &str) -> Result<(), StreamsError> {
    if text.is_empty() {
        return Ok(());
    }
    let status: Status = serde_json::from_str(text)
        .map_err(|source| StreamsError::Status { text: text.to_owned(), source })?;
    if status.status == "Success" {
        return Ok(());
    }
    let code = status.details.causes.into_iter().find(|cause| cause.reason == "ExitCode");
    match code.filter(|_| status.reason == "NonZeroExitCode") {
        Some(cause) => Err(StreamsError::Exit(cause.message)),
        None => Err(StreamsError::Failed(status.message)),
    }
}

/// Every piece at once, as a person wants to see it.
fn show(mut from: Incoming, mut to: impl Write) -> io::Result<usize> {
    let (mut buffer, mut all) = ([0; 16 << 10], 0);
    loop {
        let count = from.read(&mut buffer)?;
        if count == 0 {
            return Ok(all);
        }
        to.write_all(&buffer[..count])?;
        to.flush()?;
        all += count;
    }
}

/// The command may have gone, and with it who takes its input.
fn feed(mut outgoing: Outgoing) -> Option<()> {
    io::copy(&mut io::stdin().lock(), &mut outgoing).ok()?;
    outgoing.end().ok()
}

/// Tells of the terminal's size, at once and whenever it changes.
fn follow(changes: &SignalFd, mut resize: Outgoing) -> io::Result<()> {
    loop {
        let size = terminal::size()?;
        // In one write: the server reads one JSON value after another.
        let told = json!({ "Width": size.columns, "Height": size.rows }).to_string();
        resize.write_all(told.as_bytes())?;
        poll(&mut [PollFd::new(&changes.as_fd(), PollFlags::IN)], None)?;
        // What it says does not matter, only that it falls silent.
        let _ = changes.read_signal();
    }
}

#[cfg(test)]
mod tests;
