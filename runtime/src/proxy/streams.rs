//! Opens the stdio streams of a process, before the process exists.
//!
//!   vsock.sock ─`CONNECT 1025\n`─▶ VMM ─`OK n\n`─▶ │ ─`stdio <token> <stream>\n`─▶ agent ─`ok\n`─▶ │ bytes
//!
//! All streams of a process go through the steps together, and each says both its lines at once, so that it costs one
//! round trip and not six. Nothing is read beyond a line: what follows `ok` is the process's own.

use std::{
    io::{self, Read as _, Write as _},
    os::unix::net::UnixStream,
    time::Duration,
};

use bulkhead_protocol::{
    id::StreamToken,
    limits, ports,
    stdio::{ACCEPTED, Header, Stream},
};

use crate::store::{SandboxDir, names};

/// For one line to come back: the guest is up, but may be busy.
const PATIENCE: Duration = limits::RPC;

#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    #[error("connect to the VMM's vsock")]
    Connect { source: io::Error },
    #[error("open {stream:?} through the VMM")]
    Vmm { stream: Stream, source: io::Error },
    #[error("the VMM refuses {stream:?}: {answer:?}")]
    Refused { stream: Stream, answer: String },
    #[error("open {stream:?} at the guest's agent")]
    Agent { stream: Stream, source: io::Error },
    #[error("the guest's agent refuses {stream:?}")]
    AgentRefused { stream: Stream },
    #[error("draw a token")]
    Token { source: io::Error },
}

/// A random name for the streams of one process.
pub(super) fn token() -> Result<StreamToken, StreamError> {
    let hex = random_hex().map_err(|source| StreamError::Token { source })?;
    hex.parse().map_err(|e| StreamError::Token { source: io::Error::other(e) })
}

/// 128 random bits.
pub fn random_hex() -> io::Result<String> {
    let mut bytes = [0; 16];
    // So few bytes come in one piece.
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Opens `kinds`, in their order.
pub(super) fn open(
    sandbox: &SandboxDir,
    token: &StreamToken,
    kinds: &[Stream],
) -> Result<Vec<UnixStream>, StreamError> {
    let connect = |_: &Stream| -> io::Result<UnixStream> {
        let stream = sandbox.connect(names::VSOCK_SOCKET)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(stream)
    };
    let streams: Vec<UnixStream> = kinds
        .iter()
        .map(connect)
        .collect::<Result<_, _>>()
        .map_err(|source| StreamError::Connect { source })?;
    let both = || streams.iter().zip(kinds.iter().copied());
    for (mut socket, stream) in both() {
        // The VMM keeps what follows its line until the guest has accepted.
        let header = Header { token: token.clone(), stream };
        let lines = format!("CONNECT {}\n{header}", ports::STDIO);
        socket.write_all(lines.as_bytes()).map_err(|source| StreamError::Vmm { stream, source })?;
    }
    for (socket, stream) in both() {
        let answer = read_line(socket).map_err(|source| StreamError::Vmm { stream, source })?;
        if !answer.starts_with("OK ") {
            return Err(StreamError::Refused { stream, answer });
        }
    }
    for (mut socket, stream) in both() {
        let mut answer = [0; ACCEPTED.len()];
        socket.read_exact(&mut answer).map_err(|source| match source.kind() {
            io::ErrorKind::UnexpectedEof => StreamError::AgentRefused { stream },
            _ => StreamError::Agent { stream, source },
        })?;
        if answer != ACCEPTED {
            return Err(StreamError::AgentRefused { stream });
        }
        // From here on a process may be silent for as long as it likes.
        let unlimited = socket.set_read_timeout(None).and_then(|()| socket.set_write_timeout(None));
        unlimited.map_err(|source| StreamError::Agent { stream, source })?;
    }
    Ok(streams)
}

/// Byte by byte: the line is short, and the byte after it is not ours to take.
fn read_line(mut socket: &UnixStream) -> io::Result<String> {
    let mut line = Vec::new();
    let mut byte = [0];
    while line.len() < limits::LINE {
        match socket.read(&mut byte)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            _ if byte[0] == b'\n' => return Ok(String::from_utf8_lossy(&line).into_owned()),
            _ => line.push(byte[0]),
        }
    }
    Err(io::Error::new(io::ErrorKind::InvalidData, "line too long"))
}
