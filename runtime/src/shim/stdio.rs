//! The streams of a process as containerd names them, opened for the command that makes the process.
//!
//!   ""                 /dev/null
//!   /path, fifo://     a fifo, or a file that is there: the other end is the client's
//!   file:///path       a file, appended to
//!   binary:///path     a program that takes both outputs (`logger`)
//!
//! A fifo for output is opened for reading as well: then a client that is not there yet is no wait, and one that has gone (a
//! containerd that restarts) is no broken pipe. The daemon keeps a descriptor of it beyond the end of the process, until what is
//! in it has been taken (`Outputs`): bytes in a fifo are gone with the last descriptor.
//!
//! Input comes through a pipe of ours, which a thread fills. From when the process is there until `CloseIO` the fifo is held open for
//! writing as well: a client that goes (a containerd that restarts) is no end of input then. Else it is: who ends its input before
//! the process is there cannot call `CloseIO`, and what a client writes after it still reaches the process.

use std::{
    fs::{File, OpenOptions},
    io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::fs::{FileTypeExt as _, OpenOptionsExt as _},
    },
    path::{Path, PathBuf},
    sync::Arc,
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::{FileType, OFlags},
    pipe::PipeFlags,
};

use super::{
    command::Streams,
    logger::Logger,
    pump::{Pumps, unwaiting},
};

#[derive(Debug, thiserror::Error)]
pub(super) enum StdioError {
    #[error("open {}", path.display())]
    Open { path: PathBuf, source: io::Error },
    #[error("{0:?} is no stream: give a path, fifo://, file:// or binary://")]
    Scheme(String),
    #[error("{0:?} is not an absolute path")]
    Relative(String),
    #[error("keep a stream")]
    Keep(#[source] io::Error),
    #[error("start the logger {}", path.display())]
    Logger { path: PathBuf, source: io::Error },
}

/// As a request has them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Asked {
    pub(super) stdin: String,
    pub(super) stdout: String,
    pub(super) stderr: String,
    pub(super) terminal: bool,
}

/// Where a stream goes.
#[derive(Debug, PartialEq, Eq)]
enum Place {
    Nowhere,
    Path(PathBuf),
    Appended(PathBuf),
    Logged(Logger),
}

fn place(text: &str) -> Result<Place, StdioError> {
    if text.is_empty() {
        return Ok(Place::Nowhere);
    }
    let (scheme, path) = text.split_once("://").unwrap_or(("fifo", text));
    if !path.starts_with('/') {
        return Err(StdioError::Relative(text.to_owned()));
    }
    match scheme {
        "fifo" => Ok(Place::Path(path.into())),
        "file" => Ok(Place::Appended(path.into())),
        "binary" => Ok(Place::Logged(Logger::parse(path))),
        _ => Err(StdioError::Scheme(text.to_owned())),
    }
}

/// What a command gets, and what is kept.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) streams: Streams,
    pub(super) input: Option<Input>,
    pub(super) outputs: Outputs,
}

/// What brings a process its input, until this is dropped.
#[derive(Debug)]
pub(super) struct Input {
    path: PathBuf,
    /// Until it is known whether to hold it: a client must see when nobody reads any more.
    fifo: Option<Arc<File>>,
    /// Has the fifo not end with a client.
    writer: Option<File>,
    _pumps: Pumps,
}

impl Input {
    /// From now on the input outlives its clients, unless it has ended with one already.
    pub(super) fn hold(&mut self) {
        let Some(fifo) = self.fifo.take() else { return };
        let mut fds = [PollFd::new(&*fifo, PollFlags::empty())];
        let looked = poll(&mut fds, Some(&Timespec::default()));
        let [found] = fds;
        if looked.is_ok() && !found.revents().contains(PollFlags::HUP) {
            // Without one it ends with a client, which is all that is lost.
            self.writer = opened(&self.path, OpenOptions::new().write(true)).ok();
        }
    }

    /// From now on the input ends with its client.
    pub(super) fn close(&mut self) {
        (self.fifo, self.writer) = (None, None);
    }
}

/// The fifos that a client takes a process's output from.
#[derive(Debug, Default)]
pub(super) struct Outputs(Vec<OwnedFd>);

impl Outputs {
    /// # Errors
    /// As dup(2).
    pub(super) fn of<'a>(streams: impl IntoIterator<Item = &'a OwnedFd>) -> io::Result<Self> {
        let is_fifo = |fd: &&OwnedFd| {
            rustix::fs::fstat(fd).is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Fifo)
        };
        streams.into_iter().filter(is_fifo).map(OwnedFd::try_clone).collect::<io::Result<_>>().map(Self)
    }

    /// Lets go of those that are empty; true when none is left. A client sees the end of a stream then.
    pub(super) fn are_taken(&mut self) -> bool {
        self.0.retain(|fd| rustix::io::ioctl_fionread(fd).is_ok_and(|bytes| bytes > 0));
        self.0.is_empty()
    }
}

/// Whose the streams are: what a logger is told.
#[derive(Debug, Clone, Copy)]
pub(super) struct Owner<'a> {
    pub(super) container: &'a str,
    pub(super) namespace: &'a str,
}

/// Opens the streams of a process without a terminal.
///
/// # Errors
/// What is named is not there, or is no stream.
pub(super) fn open(asked: &Asked, owner: Owner<'_>) -> Result<Opened, StdioError> {
    let (stdin, input) = match self::input(&asked.stdin)? {
        Some((read, write)) => (Some(read), write),
        None => (None, None),
    };
    let (stdout, stderr) = outputs(asked, owner)?;
    let outputs = kept(asked, [&stdout, &stderr])?;
    Ok(Opened { streams: Streams { stdin, stdout, stderr }, input, outputs })
}

/// Opens the outputs of a process; both go to the logger that standard output names.
///
/// # Errors
/// As `open`.
pub(super) fn outputs(
    asked: &Asked,
    owner: Owner<'_>,
) -> Result<(Option<OwnedFd>, Option<OwnedFd>), StdioError> {
    if let Place::Logged(logger) = place(&asked.stdout)? {
        let started = logger.start(owner.container, owner.namespace);
        let outputs =
            started.map_err(|source| StdioError::Logger { path: logger.program.clone(), source })?;
        return Ok((Some(outputs.stdout), Some(outputs.stderr)));
    }
    Ok((output(&asked.stdout)?, output(&asked.stderr)?))
}

/// What is kept of the outputs of a process. A logger reads until the end by itself.
///
/// # Errors
/// As dup(2).
pub(super) fn kept(asked: &Asked, streams: [&Option<OwnedFd>; 2]) -> Result<Outputs, StdioError> {
    if matches!(place(&asked.stdout)?, Place::Logged(_)) {
        return Ok(Outputs::default());
    }
    Outputs::of(streams.into_iter().flatten()).map_err(StdioError::Keep)
}

/// What the process reads, and what is copied into it.
fn input(text: &str) -> Result<Option<(OwnedFd, Option<Input>)>, StdioError> {
    let path = match place(text)? {
        Place::Nowhere => return Ok(None),
        Place::Path(path) | Place::Appended(path) => path,
        Place::Logged(_) => return Err(StdioError::Scheme(text.to_owned())),
    };
    let failed = |source| StdioError::Open { path: path.clone(), source };
    let file = opened(&path, OpenOptions::new().read(true)).map_err(failed)?;
    if !file.metadata().map_err(failed)?.file_type().is_fifo() {
        return Ok(Some((file.into(), None)));
    }
    let piped = || {
        let (read, write) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
        unwaiting(&write)?;
        let (fifo, pumps) = (Arc::new(file), Pumps::new()?);
        pumps.start("stdin", fifo.clone(), File::from(write).into())?;
        Ok((read, Some(Input { path: path.clone(), fifo: Some(fifo), writer: None, _pumps: pumps })))
    };
    piped().map(Some).map_err(failed)
}

/// Where a process's output goes.
pub(super) fn output(text: &str) -> Result<Option<OwnedFd>, StdioError> {
    let (path, file) = match place(text)? {
        Place::Nowhere => return Ok(None),
        Place::Path(path) => {
            let file = opened(&path, OpenOptions::new().read(true).write(true));
            (path, file)
        }
        Place::Appended(path) => {
            let file = opened(&path, OpenOptions::new().append(true).create(true).mode(0o600));
            (path, file)
        }
        Place::Logged(_) => return Err(StdioError::Scheme(text.to_owned())),
    };
    let file = file.and_then(|file| waiting(&file).map(|()| file));
    file.map(|file| Some(file.into())).map_err(|source| StdioError::Open { path, source })
}

fn opened(path: &Path, options: &mut OpenOptions) -> io::Result<File> {
    options.custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC | libc::O_NOCTTY).open(path)
}

fn waiting(file: impl AsFd) -> io::Result<()> {
    let flags = rustix::fs::fcntl_getfl(&file)?;
    Ok(rustix::fs::fcntl_setfl(&file, flags - OFlags::NONBLOCK)?)
}

#[cfg(test)]
mod tests;
