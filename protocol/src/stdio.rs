//! Stdio of one process: one vsock stream each, opened by the host before the process is made.
//!
//!   host ──`CONNECT 1025\n`──▶ VMM ──`OK <port>\n`──▶ host ──`stdio <token> <stream>\n`──▶ agent ──`ok\n`──▶ host
//!
//! After `ok` the bytes are the process's own. End of file is a half-close (shutdown of the writing side):
//!  - stdin: the host's half-close closes the process's stdin.
//!  - stdout, stderr: the agent half-closes when the process has exited and all it wrote before that is sent, even
//!    if a grandchild still holds the pipe. When the host's end is gone, the process gets SIGPIPE as on any pipe.
//!  - tty: both directions on one stream; ends like stdout.
//!
//! Only a stream that ended with the count that `WaitProcess` reports is complete; a reset shows as a short one.

use std::{fmt, str::FromStr};

use crate::id::StreamToken;

/// The agent's answer to a good header; on a bad one it closes the stream.
pub const ACCEPTED: &[u8] = b"ok\n";

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stream {
    Stdin,
    Stdout,
    Stderr,
    Tty,
}

/// The line that opens a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    pub token: StreamToken,
    pub stream: Stream,
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a stdio header")]
pub struct HeaderError;

impl fmt::Display for Header {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let stream = match self.stream {
            Stream::Stdin => "stdin",
            Stream::Stdout => "stdout",
            Stream::Stderr => "stderr",
            Stream::Tty => "tty",
        };
        writeln!(f, "stdio {} {stream}", self.token)
    }
}

impl FromStr for Header {
    type Err = HeaderError;

    fn from_str(line: &str) -> Result<Self, HeaderError> {
        let line = line.strip_suffix('\n').unwrap_or(line);
        let mut words = line.split(' ');
        let (Some("stdio"), Some(token), Some(stream), None) =
            (words.next(), words.next(), words.next(), words.next())
        else {
            return Err(HeaderError);
        };
        let stream = match stream {
            "stdin" => Stream::Stdin,
            "stdout" => Stream::Stdout,
            "stderr" => Stream::Stderr,
            "tty" => Stream::Tty,
            _ => return Err(HeaderError),
        };
        Ok(Self { token: token.parse().map_err(|_| HeaderError)?, stream })
    }
}

#[cfg(test)]
mod tests;
