//! Terminals of the host: the user's own, put into raw mode for a while, and new ones for `--console-socket`.
//!
//! The line discipline that matters runs in the guest. The user's own terminal does one thing, as with runc: it puts a carriage
//! return before a line feed, so that the process's output has none when it goes elsewhere. With a console socket there are two
//! pseudo terminals in a row, and ours touches no byte: the caller holds its master, we pump between its slave and the guest's.

use std::{
    io::{self, IoSlice},
    mem::MaybeUninit,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
};

use rustix::{
    net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg},
    pty::{OpenptFlags, ioctl_tiocgptpeer, openpt, ptsname, unlockpt},
    termios::{OptionalActions, Termios, Winsize, tcgetattr, tcgetwinsize, tcsetattr, tcsetwinsize},
};

use crate::store::connect_path;

/// A terminal in raw mode, until this is dropped.
#[derive(Debug)]
pub struct RawMode {
    terminal: OwnedFd,
    before: Termios,
}

impl RawMode {
    /// # Errors
    /// When it is not a terminal.
    pub fn enter(terminal: impl AsFd) -> io::Result<Self> {
        let terminal = rustix::io::fcntl_dupfd_cloexec(terminal, 3)?;
        let before = tcgetattr(&terminal)?;
        make_raw(&terminal, Output::AsBefore)?;
        Ok(Self { terminal, before })
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        // What was typed and not read was meant for the container, and stays: the shell may want it.
        let _ = tcsetattr(&self.terminal, OptionalActions::Drain, &self.before);
    }
}

/// What a terminal in raw mode does with what is written to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Output {
    AsBefore,
    Raw,
}

fn make_raw(terminal: impl AsFd, output: Output) -> io::Result<()> {
    let mut raw = tcgetattr(&terminal)?;
    let modes = raw.output_modes;
    raw.make_raw();
    if output == Output::AsBefore {
        raw.output_modes = modes;
    }
    tcsetattr(&terminal, OptionalActions::Now, &raw)?;
    Ok(())
}

/// Makes a terminal, sends its master to the socket at `path`, and keeps the slave: raw, and this process's
/// controlling terminal, so that a new window size arrives as SIGWINCH.
pub(super) fn open(path: &Path, size: Option<(u16, u16)>) -> io::Result<OwnedFd> {
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let master = openpt(flags)?;
    unlockpt(&master)?;
    let slave = ioctl_tiocgptpeer(&master, flags)?;
    make_raw(&slave, Output::Raw)?;
    if let Some((columns, rows)) = size {
        let size = Winsize { ws_col: columns, ws_row: rows, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&slave, size)?;
    }
    // A caller that runs us in its own session keeps its terminal; then sizes come by explicit resizes only.
    let _ = rustix::process::ioctl_tiocsctty(&slave);
    let name = ptsname(&master, Vec::new())?;
    send_fd(path, master.as_fd(), name.as_bytes())?;
    Ok(slave)
}

/// Sends a descriptor to the unix socket at `path`, with a payload that receivers take for its name.
///
/// # Errors
/// As for connect(2) and sendmsg(2).
pub fn send_fd(path: &Path, fd: BorrowedFd<'_>, payload: &[u8]) -> io::Result<()> {
    let socket = connect_path(path)?;
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    let fds = [fd];
    // The space was made for exactly this message.
    let _ = ancillary.push(SendAncillaryMessage::ScmRights(&fds));
    sendmsg(&socket, &[IoSlice::new(payload)], &mut ancillary, SendFlags::NOSIGNAL)?;
    Ok(())
}

/// Columns and rows; `None` when it has no size.
pub(super) fn size(terminal: impl AsFd) -> Option<(u16, u16)> {
    let size = tcgetwinsize(terminal).ok()?;
    (size.ws_col > 0 && size.ws_row > 0).then_some((size.ws_col, size.ws_row))
}

#[cfg(test)]
mod tests;
