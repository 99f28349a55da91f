//! The host side of a command in the lab: start a lab or find one, run, end it.
//!
//! A lab of one's own ([`Lab::start`]) lives exactly as long as the value. A kept-alive one ([`keep`]) is detached
//! and lives until [`end`]. Both are the same supervisor process, started from this very program.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::prctl;
use nix::sys::signal::{Signal, kill};
use nix::sys::signalfd::SignalFd;
use nix::unistd::Pid;

use super::machine::Size;
use super::places::StateDir;
use super::variant::Variant;
use super::wire::{self, Exit, Frame, Request};
use super::{Error, assets, tail, terminal};

/// How long a lab gets to stop before it is killed.
const STOP_WITHIN: Duration = Duration::from_secs(20);

/// How to start a lab.
#[derive(Debug, Clone)]
pub struct Options {
    pub size: Size,
    pub variant: Variant,
    /// Whether podman and docker are in it.
    pub engines: bool,
    /// Host directory behind `/lab/out`; by default one in the lab's state directory.
    pub out: Option<PathBuf>,
    pub boot_deadline: Duration,
}

/// A lab that ends when this is dropped.
#[derive(Debug)]
pub struct Lab {
    dir: StateDir,
    supervisor: Child,
    // Last, so that it is removed when the supervisor is gone.
    _state: tempfile::TempDir,
}

impl Lab {
    /// Boots a fresh lab.
    ///
    /// # Errors
    /// It did not come up; the error holds the console's tail.
    pub fn start(options: &Options) -> Result<Self, Error> {
        let root = super::places::state_root();
        fs::create_dir_all(&root).map_err(Error::file("create", &root))?;
        sweep(&root);
        let state = tempfile::Builder::new().prefix("run-").tempdir_in(&root);
        let state = state.map_err(Error::file("create a directory in", &root))?;
        let dir = StateDir::at(state.path());
        let mut command = supervisor(&dir, options)?;
        // SAFETY: prctl is async-signal-safe and touches no memory.
        unsafe { command.pre_exec(|| prctl::set_pdeathsig(Signal::SIGTERM).map_err(io::Error::from)) };
        let supervisor = start_supervisor(&mut command)?;
        Ok(Self { dir, supervisor, _state: state })
    }

    #[must_use]
    pub fn dir(&self) -> &StateDir {
        &self.dir
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        let pid = Pid::from_raw(self.supervisor.id().cast_signed());
        // Each may fail because it has ended already.
        let _ = kill(pid, Signal::SIGTERM);
        if !wait_for_end(pid, STOP_WITHIN) {
            drop(self.supervisor.kill());
        }
        drop(self.supervisor.wait());
    }
}

/// Starts a lab that stays until [`end`].
///
/// # Errors
/// One of that name is up already, or it did not come up.
pub fn keep(dir: &StateDir, options: &Options) -> Result<(), Error> {
    if is_up(dir) {
        return Err(Error::AlreadyUp { name: dir.name() });
    }
    fs::create_dir_all(dir.path()).map_err(Error::file("create", dir.path()))?;
    let mut command = supervisor(dir, options)?;
    // SAFETY: setsid is async-signal-safe and touches no memory. It keeps the caller's Ctrl-C away from the lab.
    unsafe { command.pre_exec(|| nix::unistd::setsid().map(drop).map_err(io::Error::from)) };
    start_supervisor(&mut command).map(drop)
}

/// Ends a kept-alive lab and removes its state.
///
/// # Errors
/// None is up, or it cannot be signalled.
pub fn end(dir: &StateDir) -> Result<(), Error> {
    if !is_up(dir) {
        return Err(Error::NotUp { name: dir.name() });
    }
    let text = fs::read_to_string(dir.pid()).map_err(Error::file("read", dir.pid()))?;
    let pid: i32 = text.trim().parse().map_err(|error| Error::File {
        step: "parse",
        path: dir.pid(),
        source: io::Error::new(io::ErrorKind::InvalidData, error),
    })?;
    let pid = Pid::from_raw(pid);
    kill(pid, Signal::SIGTERM).map_err(Error::system("signal the lab's supervisor"))?;
    if !wait_for_end(pid, STOP_WITHIN) {
        kill(pid, Signal::SIGKILL).map_err(Error::system("kill the lab's supervisor"))?;
        wait_for_end(pid, STOP_WITHIN);
    }
    fs::remove_dir_all(dir.path()).map_err(Error::file("remove", dir.path()))
}

/// Whether a supervisor holds the lab's lock.
#[must_use]
pub fn is_up(dir: &StateDir) -> bool {
    let Ok(file) = File::open(dir.lock()) else { return false };
    matches!(Flock::lock(file, FlockArg::LockExclusiveNonblock), Err((_, Errno::EWOULDBLOCK)))
}

/// What a command in the lab is given as input.
#[derive(Debug, Clone, Copy)]
pub enum Input {
    Nothing,
    /// This process's stdin.
    Stdin,
}

/// Runs one command to its end, copying its output as it comes.
///
/// # Errors
/// The command was not started, the lab died, or the deadline passed; in the last case the command is killed.
pub fn execute(
    dir: &StateDir,
    request: &Request,
    input: Input,
    (stdout, stderr): (&mut dyn Write, &mut dyn Write),
    within: Option<Duration>,
) -> Result<Exit, Error> {
    let wire = |source| Error::Wire { source };
    let mut stream = UnixStream::connect(dir.socket()).map_err(|_| Error::NotUp { name: dir.name() })?;
    let json = serde_json::to_vec(request).map_err(Error::system("encode the request"))?;
    wire::send(&mut stream, &Frame::Request(json)).map_err(wire)?;
    let changes = match request.terminal {
        Some(_) => Some(terminal::size_changes().map_err(Error::system("watch the terminal"))?),
        None => None,
    };
    let to = stream.try_clone().map_err(wire)?;
    match input {
        Input::Nothing => wire::send(&mut stream, &Frame::Stdin(Vec::new())).map_err(wire)?,
        // Not joined: it sits in a read of stdin that nothing ends. It dies with the process.
        Input::Stdin => drop(thread::spawn(move || feed(&to, changes.as_ref()))),
    }

    let started = Instant::now();
    let mut stream = BufReader::new(stream);
    loop {
        let left = within.map(|within| within.saturating_sub(started.elapsed()));
        if left.is_some_and(|left| left.is_zero()) {
            return Err(deadline(dir, within));
        }
        stream.get_ref().set_read_timeout(left).map_err(wire)?;
        let died = || Error::Died { console: tail(&dir.console(), 40) };
        match wire::receive(&mut stream) {
            Ok(Some(Frame::Stdout(bytes))) => put(stdout, &bytes)?,
            Ok(Some(Frame::Stderr(bytes))) => put(stderr, &bytes)?,
            Ok(Some(Frame::Exit(exit))) => return Ok(exit),
            Ok(Some(Frame::Refused(reason))) => return Err(Error::Refused { reason }),
            Ok(Some(other)) => {
                let source = io::Error::new(io::ErrorKind::InvalidData, format!("unexpected {other:?}"));
                return Err(Error::Wire { source });
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Err(deadline(dir, within)),
            Ok(None) | Err(_) => return Err(died()),
        }
    }
}

fn deadline(dir: &StateDir, within: Option<Duration>) -> Error {
    Error::Deadline { after: within.unwrap_or_default(), console: tail(&dir.console(), 20) }
}

fn put(to: &mut dyn Write, bytes: &[u8]) -> Result<(), Error> {
    let done = to.write_all(bytes).and_then(|()| to.flush());
    done.map_err(Error::system("write the command's output"))
}

/// Sends stdin and size changes until stdin ends or the lab is gone.
fn feed(mut to: &UnixStream, changes: Option<&SignalFd>) {
    let mut stdin = io::stdin().lock();
    let mut chunk = vec![0; 64 * 1024];
    loop {
        let resized = {
            let fd = io::stdin();
            let mut fds = vec![PollFd::new(fd.as_fd(), PollFlags::POLLIN)];
            fds.extend(changes.map(|changes| PollFd::new(changes.as_fd(), PollFlags::POLLIN)));
            match poll(&mut fds, PollTimeout::NONE) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(_) => return,
            }
            fds.get(1).is_some_and(|fd| fd.any().unwrap_or(false))
        };
        let frame = if resized {
            // The signal's details do not matter, only that its descriptor falls silent.
            let _ = changes.map(SignalFd::read_signal);
            let Ok(size) = terminal::size() else { continue };
            Frame::Resize(size)
        } else {
            let Ok(length) = stdin.read(&mut chunk) else { return };
            Frame::Stdin(chunk[..length].to_vec())
        };
        let last = frame == Frame::Stdin(Vec::new());
        if wire::send(&mut to, &frame).is_err() || last {
            return;
        }
    }
}

fn supervisor(dir: &StateDir, options: &Options) -> Result<Command, Error> {
    // In this process, where the user sees the progress of a first download.
    assets::prepare(&options.variant, options.engines)?;
    let out = options.out.clone().unwrap_or_else(|| dir.out());
    fs::create_dir_all(&out).map_err(Error::file("create", &out))?;
    let out = out.canonicalize().map_err(Error::file("resolve", &out))?;
    let program = std::env::current_exe().map_err(Error::system("find this program's path"))?;
    let mut command = Command::new(program);
    command.arg("supervise").arg("--dir").arg(dir.path()).arg("--out").arg(out);
    command.arg("--memory").arg(options.size.memory_mib.to_string());
    command.arg("--cpus").arg(options.size.cpus.to_string());
    command.arg("--boot-timeout").arg(options.boot_deadline.as_secs().to_string());
    command.args(options.variant.arguments());
    if !options.engines {
        command.arg("--without-engines");
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).current_dir("/");
    Ok(command)
}

/// Starts a supervisor and waits for its word; it has a deadline of its own.
fn start_supervisor(command: &mut Command) -> Result<Child, Error> {
    let program = "the lab's supervisor".to_owned();
    let mut child = command.spawn().map_err(|source| Error::Spawn { program, source })?;
    let mut said = String::new();
    if let Some(stdout) = child.stdout.take() {
        BufReader::new(stdout).read_line(&mut said).map_err(Error::system("hear from the supervisor"))?;
    }
    if said.trim() == "ready" {
        return Ok(child);
    }
    let mut reason = String::new();
    if let Some(mut stderr) = child.stderr.take() {
        stderr.read_to_string(&mut reason).map_err(Error::system("hear from the supervisor"))?;
    }
    drop(child.wait());
    Err(Error::Boot { reason: reason.trim().to_owned() })
}

fn wait_for_end(pid: Pid, within: Duration) -> bool {
    let pid = rustix::process::Pid::from_raw(pid.as_raw()).ok_or(rustix::io::Errno::SRCH);
    let Ok(pidfd) = pid.and_then(|p| rustix::process::pidfd_open(p, rustix::process::PidfdFlags::empty()))
    else {
        return true;
    };
    let timeout = PollTimeout::try_from(within).unwrap_or(PollTimeout::MAX);
    let mut fds = [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)];
    matches!(poll(&mut fds, timeout), Ok(1..))
}

/// Removes what labs left behind whose clients were killed. A fresh directory may not be locked yet: those stay.
fn sweep(root: &std::path::Path) {
    const YOUNG: Duration = Duration::from_secs(300);
    for entry in fs::read_dir(root).into_iter().flatten().flatten() {
        let old = entry.metadata().ok().and_then(|meta| {
            let modified = Duration::from_secs(meta.mtime().cast_unsigned());
            let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).ok()?;
            Some(now.saturating_sub(modified) > YOUNG)
        });
        let ours = entry.file_name().to_string_lossy().starts_with("run-");
        if ours && old == Some(true) && !is_up(&StateDir::at(&entry.path())) {
            // Tidying only: the next one tries again.
            drop(fs::remove_dir_all(entry.path()));
        }
    }
}
