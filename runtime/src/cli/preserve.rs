//! Descriptors that a caller wants its container to have: `--preserve-fds`, and those of systemd's socket activation.
//!
//! A descriptor belongs to the host's kernel, and a microVM has a kernel of its own: none can be passed. Each is refused by
//! its number and kind, before anything is made.

use std::{env, os::fd::BorrowedFd};

use rustix::{
    fs::{FileType, fstat},
    io::Errno,
    net::{SocketType, sockopt},
};

use crate::error::Error;

/// The first descriptor that is passed, by `--preserve-fds` and by systemd (`SD_LISTEN_FDS_START`).
const FIRST: u32 = 3;

/// How many sockets systemd has given to this process, by sd_listen_fds(3).
fn activated() -> u32 {
    let number = |name: &str| env::var(name).ok().and_then(|value| value.parse::<u32>().ok());
    let ours = number("LISTEN_PID") == Some(std::process::id());
    number("LISTEN_FDS").filter(|_| ours).unwrap_or(0)
}

/// For `run` and `create`.
///
/// # Errors
/// When there is one.
pub(super) fn refuse_for_container(preserved: u32) -> Result<(), Error> {
    match activated() {
        0 => refuse(preserved),
        count => Err(refused("LISTEN_FDS", count)),
    }
}

/// `preserved` is the value of `--preserve-fds`.
///
/// # Errors
/// When it is not 0.
pub(super) fn refuse(preserved: u32) -> Result<(), Error> {
    if preserved == 0 { Ok(()) } else { Err(refused("--preserve-fds", preserved)) }
}

/// Names the first: the others are refused no less.
fn refused(by: &str, count: u32) -> Error {
    let kind = Kind::of(FIRST);
    let message = match kind {
        None => format!("{by}={count}: descriptor {FIRST} is not open"),
        Some(kind) => {
            format!("{by}={count}: descriptor {FIRST}, {}, cannot be passed into a microVM", kind.name())
        }
    };
    Error::Usage { message, hint: kind.map(Kind::instead) }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Listening,
    Stream,
    Datagram,
    Pipe,
    File,
    Directory,
    Device,
    Other,
}

impl Kind {
    /// `None` when the number is free.
    fn of(number: u32) -> Option<Self> {
        // SAFETY: the borrow lasts for calls that only ask about the descriptor. A number that is free is an error of theirs.
        let fd = unsafe { BorrowedFd::borrow_raw(number.cast_signed()) };
        let stat = match fstat(fd) {
            Ok(stat) => stat,
            Err(Errno::BADF) => return None,
            Err(_) => return Some(Self::Other),
        };
        Some(match FileType::from_raw_mode(stat.st_mode) {
            FileType::Socket if sockopt::socket_acceptconn(fd) == Ok(true) => Self::Listening,
            FileType::Socket if sockopt::socket_type(fd) == Ok(SocketType::STREAM) => Self::Stream,
            FileType::Socket => Self::Datagram,
            FileType::Fifo => Self::Pipe,
            FileType::RegularFile => Self::File,
            FileType::Directory => Self::Directory,
            FileType::CharacterDevice | FileType::BlockDevice => Self::Device,
            FileType::Symlink | FileType::Unknown => Self::Other,
        })
    }

    fn name(self) -> &'static str {
        match self {
            Self::Listening => "a listening socket",
            Self::Stream => "a stream socket",
            Self::Datagram => "a socket for datagrams",
            Self::Pipe => "a pipe",
            Self::File => "a file",
            Self::Directory => "a directory",
            Self::Device => "a device",
            Self::Other => "an object of the host's kernel",
        }
    }

    fn instead(self) -> &'static str {
        match self {
            Self::Listening => "let the program in the container listen, and publish its port",
            Self::Stream | Self::Pipe => "pass it as standard input, output or error",
            Self::File | Self::Directory => "share it as a volume",
            Self::Datagram | Self::Device | Self::Other => {
                "call without it: the container has a kernel of its own"
            }
        }
    }
}

#[cfg(test)]
mod tests;
