//! The caller's terminal: raw while a command of the lab runs on one, and watched for a change of size.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};

use super::wire::WindowSize;

/// A terminal in raw mode; back in its former mode when dropped.
#[derive(Debug)]
pub struct Raw {
    terminal: OwnedFd,
    former: Termios,
}

impl Raw {
    /// Makes stdin's terminal raw.
    ///
    /// # Errors
    /// Stdin is not a terminal.
    pub fn stdin() -> io::Result<Self> {
        let terminal = io::stdin().as_fd().try_clone_to_owned()?;
        let former = tcgetattr(&terminal)?;
        let mut raw = former.clone();
        raw.make_raw();
        tcsetattr(&terminal, OptionalActions::Drain, &raw)?;
        Ok(Self { terminal, former })
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        // Nothing to do about a terminal that is gone.
        let _ = tcsetattr(&self.terminal, OptionalActions::Drain, &self.former);
    }
}

/// Size of stdin's terminal.
///
/// # Errors
/// Stdin is not a terminal.
pub fn size() -> io::Result<WindowSize> {
    let size = tcgetwinsize(io::stdin().as_fd())?;
    Ok(WindowSize { rows: size.ws_row, columns: size.ws_col })
}

/// A descriptor that is readable once the terminal changed its size. Call before starting threads.
///
/// # Errors
/// The signal cannot be blocked.
pub fn size_changes() -> io::Result<SignalFd> {
    let mut set = SigSet::empty();
    set.add(Signal::SIGWINCH);
    set.thread_block()?;
    Ok(SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?)
}
