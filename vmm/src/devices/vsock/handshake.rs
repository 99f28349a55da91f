//! The line that a host client sends first: `CONNECT <port>\n`, answered with `OK <host port>\n` once the guest agrees.
//!
//! The line is peeked at and then taken to the newline and no further: what follows belongs to the guest. A client
//! that sends anything else, or too much, or nothing until its deadline, is closed without a word.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    time::Instant,
};

use rustix::net::{RecvFlags, recv};

/// `CONNECT 4294967295\n` and some grace.
const MAX_LINE: usize = 32;

/// A client that has not said yet which port it wants.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) socket: OwnedFd,
    pub(super) deadline: Instant,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Wish {
    /// Not there yet.
    Incomplete,
    Port(u32),
    /// Gone, or not speaking this protocol.
    Nonsense,
}

impl Client {
    /// Takes the line if it is there.
    pub(super) fn wish(&self) -> Wish {
        match self.take_line() {
            Ok(Some(line)) => parse(&line).map_or(Wish::Nonsense, Wish::Port),
            Ok(None) => Wish::Incomplete,
            Err(_) => Wish::Nonsense,
        }
    }

    fn take_line(&self) -> io::Result<Option<Vec<u8>>> {
        let mut line = [0; MAX_LINE];
        let peeked = match recv(self.socket.as_fd(), &mut line, RecvFlags::PEEK | RecvFlags::DONTWAIT) {
            Ok((0, _)) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok((peeked, _)) => peeked.min(MAX_LINE),
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => return Ok(None),
            Err(errno) => return Err(errno.into()),
        };
        let Some(newline) = line[..peeked].iter().position(|byte| *byte == b'\n') else {
            return if peeked == MAX_LINE { Err(io::ErrorKind::InvalidData.into()) } else { Ok(None) };
        };
        // What was peeked at is there, and this thread is its only reader.
        let (taken, _) = recv(self.socket.as_fd(), &mut line[..=newline], RecvFlags::DONTWAIT)?;
        if taken == newline + 1 {
            Ok(Some(line[..newline].to_vec()))
        } else {
            Err(io::ErrorKind::InvalidData.into())
        }
    }
}

fn parse(line: &[u8]) -> Option<u32> {
    let port = line.strip_prefix(b"CONNECT ")?;
    // `u32::from_str` would take a plus sign.
    if !port.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(port).ok()?.parse().ok()
}

/// The answer when the guest has accepted.
pub(super) fn granted(host_port: u32) -> String {
    format!("OK {host_port}\n")
}
