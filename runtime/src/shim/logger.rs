//! A program that takes a container's output, as nerdctl and `ctr --log-uri` ask for it.
//!
//!   binary:///path?key=value ─▶ /path key value, with CONTAINER_ID and CONTAINER_NAMESPACE
//!   descriptor 3: standard output to read, 4: standard error to read, 5: to be closed when it is ready
//!
//! The logger ends by itself at the end of its input. One that dies is a broken pipe for who writes.

use std::{
    ffi::OsString,
    io,
    os::{fd::OwnedFd, unix::ffi::OsStringExt as _},
    path::PathBuf,
    process::{Command, Stdio},
    time::Duration,
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    pipe::{PipeFlags, pipe_with},
};

use crate::sandbox::pass_as;

/// For a logger to say that it is ready; containerd's own time.
const READY: Duration = Duration::from_secs(10);
/// The first descriptor of a logger's, and one beyond all of them.
const FIRST: i32 = 3;
const BEYOND: i32 = 16;

/// What is behind `binary://`.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Logger {
    pub(super) program: PathBuf,
    arguments: Vec<OsString>,
}

/// Where a process's output goes.
#[derive(Debug)]
pub(super) struct Outputs {
    pub(super) stdout: OwnedFd,
    pub(super) stderr: OwnedFd,
}

impl Logger {
    /// `/path?key=value&flag`. What is written as `%XX` is that byte.
    pub(super) fn parse(text: &str) -> Self {
        let (path, query) = text.split_once('?').unwrap_or((text, ""));
        let pairs = query.split('&').filter(|pair| !pair.is_empty());
        let words = pairs.flat_map(|pair| match pair.split_once('=') {
            Some((key, "")) => vec![key],
            Some((key, value)) => vec![key, value],
            None => vec![pair],
        });
        let arguments = words.map(|word| OsString::from_vec(decoded(word, true))).collect();
        Self { program: OsString::from_vec(decoded(path, false)).into(), arguments }
    }

    /// Starts it, and waits until it is ready.
    ///
    /// # Errors
    /// It cannot be started, or is not ready in time.
    pub(super) fn start(&self, container: &str, namespace: &str) -> io::Result<Outputs> {
        let (stdout, out) = pipe_with(PipeFlags::CLOEXEC)?;
        let (stderr, err) = pipe_with(PipeFlags::CLOEXEC)?;
        let (ready, told) = pipe_with(PipeFlags::CLOEXEC)?;
        let mut command = Command::new(&self.program);
        command.args(&self.arguments).env("CONTAINER_ID", container).env("CONTAINER_NAMESPACE", namespace);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        for (number, fd) in (FIRST..).zip([stdout, stderr, told]) {
            // None of them has a number that another one gets.
            pass_as(&mut command, rustix::io::fcntl_dupfd_cloexec(fd, BEYOND)?, number);
        }
        // The reaper takes its exit.
        let mut child = command.spawn()?;
        drop(command);
        let mut fds = [PollFd::new(&ready, PollFlags::IN)];
        let patience = Timespec { tv_sec: i64::try_from(READY.as_secs()).unwrap_or(i64::MAX), tv_nsec: 0 };
        if poll(&mut fds, Some(&patience))? == 0 {
            let _ = child.kill();
            return Err(io::ErrorKind::TimedOut.into());
        }
        Ok(Outputs { stdout: out, stderr: err })
    }
}

/// Without the escapes of a URI; `+` is a space in a query alone.
fn decoded(text: &str, query: bool) -> Vec<u8> {
    let mut rest = text.as_bytes();
    let mut plain = Vec::with_capacity(rest.len());
    while let [byte, tail @ ..] = rest {
        let digits = if *byte == b'%' { tail.get(..2) } else { None };
        let value = digits.and_then(|two| u8::from_str_radix(std::str::from_utf8(two).ok()?, 16).ok());
        plain.push(match value {
            Some(value) => value,
            None if query && *byte == b'+' => b' ',
            None => *byte,
        });
        rest = if value.is_some() { tail.get(2..).unwrap_or_default() } else { tail };
    }
    plain
}

#[cfg(test)]
mod tests;
