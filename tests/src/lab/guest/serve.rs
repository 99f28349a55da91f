//! Runs one command per connection inside the lab.
//!
//! ```text
//!  socket ─▶ input thread ─▶ child's stdin (or terminal)        closes when the client says end of file
//!  socket ◀─ this thread  ◀─ child's stdout, stderr (or terminal)   poll, also on the child's pidfd
//! ```
//!
//! The exit is sent when the child has ended and the pipes hold nothing more: what it wrote before its end is in them
//! by then, and a grandchild that keeps a pipe open does not delay the answer. A client that goes away takes the
//! command's whole session with it.

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;

use nix::errno::Errno;
use nix::pty::openpty;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{PidfdFlags, pidfd_open};
use rustix::termios::{Winsize, tcsetwinsize};

use crate::lab::machine::SERVE_PORT;
use crate::lab::wire::{self, Exit, Frame, Request, WindowSize};

const CHUNK: usize = 64 * 1024;
/// The most a pipe can hold (fs.pipe-max-size): no more than this can have been written before the command's end.
const PIPE_HOLDS: usize = 1 << 20;
/// How long a terminal may stay silent after its command's end before its last output counts as read.
const TERMINAL_SETTLES: Timespec = Timespec { tv_sec: 0, tv_nsec: 250_000_000 };

pub(super) fn listen() -> io::Result<TcpListener> {
    TcpListener::bind((Ipv4Addr::UNSPECIFIED, SERVE_PORT))
}

/// Serves clients, each in its own thread, until accepting fails; returns why.
pub(super) fn accept_all(listener: &TcpListener) -> io::Error {
    loop {
        match listener.accept() {
            Ok((client, _)) => {
                thread::spawn(move || {
                    if let Err(error) = serve(&client) {
                        eprintln!("lab: a client was lost: {error}");
                    }
                    drop(client.shutdown(Shutdown::Write));
                });
            }
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(error) => return error,
        }
    }
}

fn serve(client: &TcpStream) -> io::Result<()> {
    client.set_nodelay(true)?;
    let Some(Frame::Request(json)) = wire::receive(&mut &*client)? else { return Ok(()) };
    let request: Request = serde_json::from_slice(&json)?;
    match Job::start(&request) {
        Ok(job) => job.serve(client),
        Err(error) => {
            let program = request.argv.first().map_or("", String::as_str);
            wire::send(&mut &*client, &Frame::Refused(format!("{program}: {error}")))
        }
    }
}

/// A started command and our ends of its stdio.
struct Job {
    child: Child,
    /// Our ends of stdout and stderr, or of the terminal, until their end.
    outputs: Vec<Output>,
    /// Handed to the input thread when serving begins; its being dropped there is the command's end of file.
    input: Option<File>,
    terminal: bool,
}

struct Output {
    file: File,
    frame: fn(Vec<u8>) -> Frame,
}

impl Job {
    fn start(request: &Request) -> io::Result<Self> {
        let Some((program, args)) = request.argv.split_first() else {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "no command given"));
        };
        let mut command = Command::new(program);
        command.args(args).env_clear().envs(request.env.iter().cloned()).current_dir(&request.cwd);
        match request.terminal {
            None => Self::on_pipes(command),
            Some(size) => Self::on_terminal(command, size),
        }
    }

    fn on_pipes(mut command: Command) -> io::Result<Self> {
        // A session of its own, so that the whole of it can be killed.
        // SAFETY: setsid is async-signal-safe and touches no memory.
        unsafe { command.pre_exec(|| nix::unistd::setsid().map(drop).map_err(io::Error::from)) };
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn()?;
        let gone = || io::Error::other("the child has no such pipe");
        let stdin = OwnedFd::from(child.stdin.take().ok_or_else(gone)?);
        let stdout = OwnedFd::from(child.stdout.take().ok_or_else(gone)?);
        let stderr = OwnedFd::from(child.stderr.take().ok_or_else(gone)?);
        let outputs = vec![
            Output { file: stdout.into(), frame: Frame::Stdout },
            Output { file: stderr.into(), frame: Frame::Stderr },
        ];
        Ok(Self { child, outputs, input: Some(stdin.into()), terminal: false })
    }

    fn on_terminal(mut command: Command, size: WindowSize) -> io::Result<Self> {
        let pair = openpty(None, None)?;
        resize(&pair.master, size)?;
        command.stdin(pair.slave.try_clone()?).stdout(pair.slave.try_clone()?).stderr(pair.slave);
        // SAFETY: setsid and ioctl are async-signal-safe; descriptor 0 is the terminal at this point.
        unsafe {
            command.pre_exec(|| {
                nix::unistd::setsid()?;
                rustix::process::ioctl_tiocsctty(BorrowedFd::borrow_raw(0)).map_err(io::Error::from)
            });
        }
        let child = command.spawn()?;
        // The command holds the slave end too; without this drop the terminal would never end.
        drop(command);
        let master = File::from(pair.master);
        let outputs = vec![Output { file: master.try_clone()?, frame: Frame::Stdout }];
        Ok(Self { child, outputs, input: Some(master), terminal: true })
    }

    fn serve(mut self, client: &TcpStream) -> io::Result<()> {
        let from = client.try_clone()?;
        let (input, terminal) = (self.input.take(), self.terminal);
        // Not joined: it may be stuck in a pipe nobody reads. It ends with the client's connection.
        thread::spawn(move || feed(&from, input, terminal));
        let result = self.pump(client);
        if result.is_err() {
            self.kill_session();
        }
        let status = self.child.wait()?;
        result?;
        wire::send(&mut &*client, &Frame::Exit(exit(status)))
    }

    /// Sends output until the child has ended and all it wrote is sent.
    fn pump(&mut self, client: &TcpStream) -> io::Result<()> {
        let pid = rustix::process::Pid::from_raw(self.child.id().cast_signed());
        let pidfd = pidfd_open(pid.ok_or(Errno::ESRCH)?, PidfdFlags::empty())?;
        let mut ended = false;
        let mut after_end = 0;
        loop {
            let (client_gone, child_ended, ready) = self.wait(client, &pidfd, ended)?;
            if client_gone {
                return Err(io::ErrorKind::ConnectionReset.into());
            }
            if ended && (ready.is_empty() || after_end > self.outputs.len() * PIPE_HOLDS) {
                return Ok(());
            }
            // From the last to the first, so that removing one leaves the other indices right.
            for index in ready.into_iter().rev() {
                match self.forward(index, client)? {
                    None => drop(self.outputs.remove(index)),
                    Some(length) if ended => after_end += length,
                    Some(_) => {}
                }
            }
            ended |= child_ended;
        }
    }

    /// Waits for something to do; after the child's end only looks whether there is more to read.
    fn wait(&self, client: &TcpStream, pidfd: &OwnedFd, ended: bool) -> io::Result<(bool, bool, Vec<usize>)> {
        let mut fds = vec![PollFd::new(client, PollFlags::RDHUP)];
        // A dead child's pidfd stays readable and would make this loop spin.
        let watched = if ended { PollFlags::empty() } else { PollFlags::IN };
        fds.push(PollFd::new(pidfd, watched));
        fds.extend(self.outputs.iter().map(|output| PollFd::new(&output.file, PollFlags::IN)));
        let timeout = match (ended, self.terminal) {
            (false, _) => None,
            (true, false) => Some(Timespec { tv_sec: 0, tv_nsec: 0 }),
            (true, true) => Some(TERMINAL_SETTLES),
        };
        if ended && self.outputs.is_empty() {
            return Ok((false, true, Vec::new()));
        }
        match poll(&mut fds, timeout.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        let fired: Vec<bool> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
        let ready = (0..self.outputs.len()).filter(|index| fired[index + 2]).collect();
        Ok((fired[0], fired[1] && !ended, ready))
    }

    /// Reads once from an output that has something; `None` at its end.
    fn forward(&mut self, index: usize, client: &TcpStream) -> io::Result<Option<usize>> {
        let output = &mut self.outputs[index];
        let mut chunk = vec![0; CHUNK];
        match output.file.read(&mut chunk) {
            Ok(0) => Ok(None),
            Ok(length) => {
                chunk.truncate(length);
                wire::send(&mut &*client, &(output.frame)(chunk))?;
                Ok(Some(length))
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(Some(0)),
            // A terminal whose other end is closed reads as EIO.
            Err(error) if self.terminal && error.raw_os_error() == Some(libc::EIO) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn kill_session(&mut self) {
        // The child leads its session and its group; failing means that it is gone.
        let _ = killpg(Pid::from_raw(self.child.id().cast_signed()), Signal::SIGKILL);
    }
}

/// Copies the client's frames to the command until the client closes. Goes on reading when the command no longer
/// takes its input: closing a socket with unread bytes would reset it and lose the exit frame.
fn feed(mut from: &TcpStream, mut input: Option<File>, terminal: bool) {
    while let Ok(Some(frame)) = wire::receive(&mut from) {
        match frame {
            Frame::Stdin(bytes) if bytes.is_empty() => {
                if !terminal {
                    input = None;
                }
            }
            Frame::Stdin(bytes) => {
                if input.as_mut().is_some_and(|input| input.write_all(&bytes).is_err()) {
                    input = None;
                }
            }
            Frame::Resize(size) => {
                if let Some(input) = &input {
                    // A terminal that is gone has no size to set.
                    drop(resize(input, size));
                }
            }
            _ => return,
        }
    }
}

fn resize(terminal: &impl AsFd, size: WindowSize) -> io::Result<()> {
    let size = Winsize { ws_row: size.rows, ws_col: size.columns, ws_xpixel: 0, ws_ypixel: 0 };
    Ok(tcsetwinsize(terminal, size)?)
}

fn exit(status: ExitStatus) -> Exit {
    match (status.code(), status.signal()) {
        (Some(code), _) => Exit::Code(code),
        (None, signal) => Exit::Signal(signal.unwrap_or(libc::SIGKILL)),
    }
}

#[cfg(test)]
#[path = "serve_tests.rs"]
mod tests;
