//! The terminal of a process: its proxy makes it and hands us the master; we pump between the master and the client's fifos.
//!
//!   stdin fifo ─▶ master ─▶ stdout fifo        one thread each way; both end when the slave is closed, or this is dropped

use std::{
    fs::File,
    io::{self, IoSliceMut},
    mem::MaybeUninit,
    os::{fd::OwnedFd, unix::net::UnixListener},
    path::PathBuf,
    sync::Arc,
};

use rustix::{
    net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg},
    termios::{Winsize, tcsetwinsize},
};

use super::{
    place,
    pump::{Pumps, unwaiting},
    stdio::{self, Asked, Outputs, Owner, StdioError},
};

#[derive(Debug, thiserror::Error)]
pub(super) enum TerminalError {
    #[error(transparent)]
    Stdio(#[from] StdioError),
    #[error("make a socket for the terminal")]
    Socket(#[source] io::Error),
    #[error("receive the terminal")]
    Receive(#[source] io::Error),
}

/// Where a proxy sends the master to, and who takes it from there.
#[derive(Debug)]
pub(super) struct Console {
    directory: tempfile::TempDir,
    listener: UnixListener,
    input: Option<OwnedFd>,
    output: Option<OwnedFd>,
    outputs: Outputs,
}

impl Console {
    /// # Errors
    /// The streams cannot be opened, or no socket can be made.
    pub(super) fn new(asked: &Asked, owner: Owner<'_>) -> Result<Self, TerminalError> {
        // In a terminal the end of input is a character, and not the end of the fifo.
        let input = stdio::output(&asked.stdin)?;
        let (output, _) = stdio::outputs(asked, owner)?;
        let outputs = stdio::kept(asked, [&output, &None])?;
        let directory = tempfile::tempdir_in(place::HOME).map_err(TerminalError::Socket)?;
        let listener = UnixListener::bind(directory.path().join("console")).map_err(TerminalError::Socket)?;
        listener.set_nonblocking(true).map_err(TerminalError::Socket)?;
        Ok(Self { directory, listener, input, output, outputs })
    }

    pub(super) fn path(&self) -> PathBuf {
        self.directory.path().join("console")
    }

    /// Takes the master, which was sent before the process was reported to be there; the terminal, and what is kept of its output.
    ///
    /// # Errors
    /// None was sent.
    pub(super) fn take(self) -> Result<(Terminal, Outputs), TerminalError> {
        let master = self.receive().map_err(TerminalError::Receive)?;
        let terminal = Terminal::start(master, self.input, self.output).map_err(TerminalError::Receive)?;
        Ok((terminal, self.outputs))
    }

    fn receive(&self) -> io::Result<OwnedFd> {
        let (socket, _) = self.listener.accept()?;
        let mut name = [0; 256];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let flags = RecvFlags::CMSG_CLOEXEC;
        recvmsg(&socket, &mut [IoSliceMut::new(&mut name)], &mut ancillary, flags)?;
        let fd = ancillary.drain().find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
            _ => None,
        });
        fd.ok_or_else(|| io::ErrorKind::InvalidData.into())
    }
}

/// A terminal whose bytes flow.
#[derive(Debug)]
pub(super) struct Terminal {
    master: Arc<File>,
    _pumps: Pumps,
}

impl Terminal {
    fn start(master: OwnedFd, input: Option<OwnedFd>, output: Option<OwnedFd>) -> io::Result<Self> {
        unwaiting(&master)?;
        let master = Arc::new(File::from(master));
        let pumps = Pumps::new()?;
        if let Some(input) = input {
            unwaiting(&input)?;
            pumps.start("terminal-in", File::from(input).into(), master.clone())?;
        }
        // Without a client the output is read all the same, or the process would stand still.
        let output = match output {
            Some(output) => output,
            None => File::options().write(true).open("/dev/null")?.into(),
        };
        unwaiting(&output)?;
        pumps.start("terminal-out", master.clone(), File::from(output).into())?;
        Ok(Self { master, _pumps: pumps })
    }

    /// # Errors
    /// As tcsetwinsize(3).
    pub(super) fn resize(&self, columns: u16, rows: u16) -> io::Result<()> {
        let size = Winsize { ws_col: columns, ws_row: rows, ws_xpixel: 0, ws_ypixel: 0 };
        Ok(tcsetwinsize(&*self.master, size)?)
    }
}
