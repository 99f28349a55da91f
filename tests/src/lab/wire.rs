//! What a client and the lab's `serve` say to each other, on one connection per command.
//!
//! The client opens with a [`Request`] as JSON in one frame, then sends `Stdin` and `Resize` frames. The lab answers
//! with `Stdout` and `Stderr` frames and ends with exactly one `Exit` or `Refused`. A frame is a kind byte, a length
//! (u32, little endian, at most [`MAX_FRAME`]) and the payload. A client that closes its side takes the command down.

use std::io::{self, Read, Write};

use serde::{Deserialize, Serialize};

/// Longest payload either side accepts.
pub const MAX_FRAME: usize = 1 << 20;

/// A command to run in the lab.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// Program and arguments; the program is looked up in the request's `PATH`.
    pub argv: Vec<String>,
    /// The whole environment.
    pub env: Vec<(String, String)>,
    /// Working directory, absolute.
    pub cwd: String,
    /// Size of the terminal to run on; none for pipes.
    pub terminal: Option<WindowSize>,
}

/// Terminal size in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct WindowSize {
    pub rows: u16,
    pub columns: u16,
}

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Exit {
    Code(i32),
    Signal(i32),
}

impl Exit {
    /// The exit status a shell would show.
    #[must_use]
    pub fn status(self) -> i32 {
        match self {
            Self::Code(code) => code,
            Self::Signal(signal) => 128 + signal,
        }
    }
}

/// One message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    Request(Vec<u8>),
    /// Empty means end of file.
    Stdin(Vec<u8>),
    Resize(WindowSize),
    Stdout(Vec<u8>),
    Stderr(Vec<u8>),
    Exit(Exit),
    /// The command was not started; says why.
    Refused(String),
}

/// Sends one frame.
///
/// # Errors
/// Whatever writing to `to` fails with.
pub fn send(to: &mut impl Write, frame: &Frame) -> io::Result<()> {
    let json = |value: Result<Vec<u8>, serde_json::Error>| value.map_err(io::Error::other);
    let (kind, payload) = match frame {
        Frame::Request(json) => (b'q', json.clone()),
        Frame::Stdin(bytes) => (b'i', bytes.clone()),
        Frame::Resize(size) => (b'w', json(serde_json::to_vec(size))?),
        Frame::Stdout(bytes) => (b'o', bytes.clone()),
        Frame::Stderr(bytes) => (b'e', bytes.clone()),
        Frame::Exit(exit) => (b'x', json(serde_json::to_vec(exit))?),
        Frame::Refused(reason) => (b'r', reason.as_bytes().to_vec()),
    };
    let length = u32::try_from(payload.len()).ok().filter(|&n| n as usize <= MAX_FRAME);
    let length = length.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "frame too long"))?;
    // One write per frame: small frames must not wait for each other's acknowledgement.
    let mut bytes = Vec::with_capacity(5 + payload.len());
    bytes.push(kind);
    bytes.extend_from_slice(&length.to_le_bytes());
    bytes.extend_from_slice(&payload);
    to.write_all(&bytes)
}

/// Receives one frame; `None` when the other side closed between frames.
///
/// # Errors
/// A frame that is cut off, too long, of an unknown kind or with a payload that does not parse.
pub fn receive(from: &mut impl Read) -> io::Result<Option<Frame>> {
    let mut kind = [0];
    if from.read(&mut kind)? == 0 {
        return Ok(None);
    }
    let mut length = [0; 4];
    from.read_exact(&mut length)?;
    let length = u32::from_le_bytes(length) as usize;
    if length > MAX_FRAME {
        return Err(invalid(format!("frame of {length} bytes")));
    }
    let mut payload = vec![0; length];
    from.read_exact(&mut payload)?;
    Ok(Some(match kind[0] {
        b'q' => Frame::Request(payload),
        b'i' => Frame::Stdin(payload),
        b'w' => Frame::Resize(serde_json::from_slice(&payload)?),
        b'o' => Frame::Stdout(payload),
        b'e' => Frame::Stderr(payload),
        b'x' => Frame::Exit(serde_json::from_slice(&payload)?),
        b'r' => Frame::Refused(String::from_utf8_lossy(&payload).into_owned()),
        other => return Err(invalid(format!("frame of unknown kind {other:#x}"))),
    }))
}

fn invalid(message: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, message)
}

#[cfg(test)]
#[path = "wire_tests.rs"]
mod tests;
