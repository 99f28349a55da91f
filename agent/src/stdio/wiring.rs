//! From the streams the host opened to a process's fds 0, 1 and 2, and back to byte counts at its exit.
//!
//!   Streams ─wire─▶ (ChildStdio for container-init, Wiring) ─connect(pty master)─▶ Io ─finish─▶ Counts
//!
//! Dropping a `Wiring` closes the streams: the host sees that the process was never made.

use std::{
    fs::File,
    io,
    os::fd::OwnedFd,
    sync::{Arc, Weak},
};

use bulkhead_relay::Endpoint;
use rustix::{
    pipe::{PipeFlags, pipe_with},
    termios::{Winsize, tcsetwinsize},
};
use tokio::task::AbortHandle;

use super::{
    pending::Streams,
    pump::{Output, copy_input},
};
use crate::container::ChildStdio;

/// Our ends, before the process exists.
#[derive(Debug)]
pub enum Wiring {
    Pipes {
        stdin: Option<Pair>,
        stdout: Option<Pair>,
        stderr: Option<Pair>,
    },
    /// The pty's master comes with the process.
    Terminal {
        stream: Endpoint,
    },
}

/// A host's stream and our end of the pipe that it belongs to.
#[derive(Debug)]
pub struct Pair {
    stream: Endpoint,
    pipe: Endpoint,
}

/// Bytes that the process's streams carry; with a terminal `stdout` counts its output.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    pub stdout: u64,
    pub stderr: u64,
}

/// The running pumps of one process. Dropping it stops the input; output runs to its end.
#[derive(Debug, Default)]
pub struct Io {
    input: Option<AbortOnDrop>,
    stdout: Option<Output>,
    stderr: Option<Output>,
    tty: Option<Output>,
}

/// For window sizes. Weak, so that the terminal hangs up when its stream is gone.
#[derive(Debug, Clone)]
pub struct Tty(Weak<Endpoint>);

#[derive(Debug)]
struct AbortOnDrop(AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Makes the child's ends; what the host did not open is /dev/null.
pub fn wire(streams: Streams, terminal: bool) -> io::Result<(ChildStdio, Wiring)> {
    if terminal {
        let stream = streams.tty.ok_or(io::ErrorKind::NotConnected)?;
        let null = || File::options().read(true).write(true).open("/dev/null").map(OwnedFd::from);
        let child = ChildStdio { stdin: null()?, stdout: null()?, stderr: null()?, terminal };
        return Ok((child, Wiring::Terminal { stream: Endpoint::new(stream)? }));
    }
    let (child_stdin, stdin) = pipe_to_child(streams.stdin)?;
    let (child_stdout, stdout) = pipe_from_child(streams.stdout)?;
    let (child_stderr, stderr) = pipe_from_child(streams.stderr)?;
    let child = ChildStdio { stdin: child_stdin, stdout: child_stdout, stderr: child_stderr, terminal };
    Ok((child, Wiring::Pipes { stdin, stdout, stderr }))
}

fn pipe_to_child(stream: Option<OwnedFd>) -> io::Result<(OwnedFd, Option<Pair>)> {
    let Some(stream) = stream else { return Ok((File::open("/dev/null")?.into(), None)) };
    let (child, ours) = pipe_with(PipeFlags::CLOEXEC)?;
    Ok((child, Some(Pair { stream: Endpoint::new(stream)?, pipe: Endpoint::new(ours)? })))
}

fn pipe_from_child(stream: Option<OwnedFd>) -> io::Result<(OwnedFd, Option<Pair>)> {
    let Some(stream) = stream else {
        return Ok((File::options().write(true).open("/dev/null")?.into(), None));
    };
    let (ours, child) = pipe_with(PipeFlags::CLOEXEC)?;
    Ok((child, Some(Pair { stream: Endpoint::new(stream)?, pipe: Endpoint::new(ours)? })))
}

impl Wiring {
    /// Starts the pumps. The child's ends must be gone from this process by now, or no pipe will ever end.
    pub fn connect(self, pty_master: Option<OwnedFd>) -> io::Result<(Io, Option<Tty>)> {
        match (self, pty_master) {
            (Self::Pipes { stdin, stdout, stderr }, None) => {
                let output = |pair: Pair| Output::start(Arc::new(pair.pipe), Arc::new(pair.stream));
                let input = |pair: Pair| start_input(Arc::new(pair.stream), Arc::new(pair.pipe));
                let io = Io {
                    input: stdin.map(input),
                    stdout: stdout.map(output),
                    stderr: stderr.map(output),
                    tty: None,
                };
                Ok((io, None))
            }
            (Self::Terminal { stream }, Some(master)) => {
                let (stream, master) = (Arc::new(stream), Arc::new(Endpoint::new(master)?));
                let tty = Tty(Arc::downgrade(&master));
                let io = Io {
                    input: Some(start_input(stream.clone(), master.clone())),
                    tty: Some(Output::start(master, stream)),
                    ..Io::default()
                };
                Ok((io, Some(tty)))
            }
            (Self::Pipes { .. }, Some(_)) | (Self::Terminal { .. }, None) => {
                Err(io::Error::other("the process was made with another kind of stdio than asked for"))
            }
        }
    }
}

fn start_input(from: Arc<Endpoint>, to: Arc<Endpoint>) -> AbortOnDrop {
    AbortOnDrop(tokio::spawn(copy_input(from, to)).abort_handle())
}

impl Io {
    /// The process has exited: ends its input, and answers what its output streams carry.
    pub async fn finish(self) -> Counts {
        drop(self.input);
        let mut counts = Counts::default();
        if let Some(output) = self.tty {
            counts.stdout = output.finish_tty().await;
        }
        if let Some(output) = self.stdout {
            counts.stdout = output.finish_pipe().await;
        }
        if let Some(output) = self.stderr {
            counts.stderr = output.finish_pipe().await;
        }
        counts
    }
}

impl Tty {
    /// `NotConnected` when the terminal has hung up.
    pub fn resize(&self, columns: u16, rows: u16) -> io::Result<()> {
        let master = self.0.upgrade().ok_or(io::ErrorKind::NotConnected)?;
        let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        Ok(tcsetwinsize(&*master, size)?)
    }
}

#[cfg(test)]
mod tests;
