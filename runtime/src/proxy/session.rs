//! One process, from its streams to its exit code.
//!
//!   open: connect ─▶ attach ─▶ streams ─▶ Create, or Exec + Start          run: pump, relay, wait ─▶ code
//!
//! The exit is announced when as many bytes are delivered as the process wrote: not at end of file, for a grandchild
//! may hold the pipe, and not after a time.

use std::{
    io,
    os::{
        fd::{AsFd as _, BorrowedFd, OwnedFd},
        unix::net::UnixStream,
    },
    time::Duration,
};

use bulkhead_protocol::{
    sandbox::{AttachProxyRequest, WaitProcessRequest, WaitProcessResponse},
    stdio::Stream,
};
use containerd_shim_protos::api::{
    CreateTaskRequest, ExecProcessRequest, KillRequest, ResizePtyRequest, StartRequest,
};
use tokio::sync::watch;

use super::{
    Plan, Relay, Terminal, Work, console,
    pump::{self, Progress},
    streams::{self, StreamError},
};
use crate::{
    api::{
        WireError,
        client::{CallError, KILLED, Server, bounded, exit_code, unbounded, until_booted},
        container_options, exec_spec,
    },
    container::vsock_stdio,
    log::note,
    store::{Process, SandboxDir, names},
};

/// For output that is on its way when the sandbox has died: the VMM's sockets close at once.
const LAST_OUTPUT: Duration = Duration::from_millis(500);

#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    #[error("the sandbox is gone")]
    NoSandbox,
    #[error("connect to the sandbox server")]
    Connect { source: io::Error },
    #[error(transparent)]
    Call(#[from] CallError),
    #[error(transparent)]
    Stream(#[from] StreamError),
    #[error(transparent)]
    Wire(#[from] WireError),
    #[error("console socket {path}")]
    Console { path: String, source: io::Error },
    #[error("standard stream {number}")]
    Standard { number: u32, source: io::Error },
    #[error("read this process's pid")]
    Pid { source: io::Error },
}

impl SessionError {
    /// The server itself went away.
    pub fn is_gone(&self) -> bool {
        matches!(self, Self::NoSandbox | Self::Connect { .. } | Self::Call(CallError::Gone { .. }))
    }

    /// What the reader can do about it.
    pub fn hint(&self) -> Option<&str> {
        match self {
            Self::Call(error) => error.hint(),
            Self::NoSandbox
            | Self::Connect { .. }
            | Self::Stream(_)
            | Self::Wire(_)
            | Self::Console { .. }
            | Self::Standard { .. }
            | Self::Pid { .. } => None,
        }
    }
}

/// What stays open of the process's streams, with the host's side of each.
#[derive(Debug)]
enum Ends {
    Separate {
        stdin: Option<(OwnedFd, UnixStream)>,
        stdout: (UnixStream, OwnedFd),
        stderr: (UnixStream, OwnedFd),
    },
    Terminal {
        input: OwnedFd,
        output: OwnedFd,
        stream: UnixStream,
    },
}

/// A container that is parked, or an exec that runs.
#[derive(Debug)]
pub struct Session {
    server: Server,
    container: String,
    exec: String,
    ends: Ends,
}

impl Session {
    /// # Errors
    /// When the sandbox does not come up or refuses; the process is not there then.
    pub async fn open(sandbox: &SandboxDir, plan: &Plan) -> Result<Self, SessionError> {
        let connect = |source| SessionError::Connect { source };
        let server = Server::on(sandbox.connect(names::SERVER_SOCKET).map_err(connect)?).map_err(connect)?;
        let container = plan.id.to_string();
        let exec = match &plan.work {
            Work::Create(_) => String::new(),
            Work::Exec { exec_id, .. } => exec_id.to_string(),
        };
        let pid = Process::current().map_err(|source| SessionError::Pid { source })?.pid;
        let (container_id, exec_id) = (container.clone(), exec.clone());
        let attach = AttachProxyRequest { container_id, exec_id, pid, ..Default::default() };
        server.sandbox.attach_proxy(until_booted(), &attach).await.map_err(CallError::from)?;

        let token = streams::token()?;
        let ends = match &plan.terminal {
            None => separate(sandbox, &token)?,
            Some(terminal) => with_terminal(sandbox, &token, terminal, plan)?,
        };
        let session = Self { server, container, exec, ends };
        session.begin(&plan.work, &vsock_stdio(&token)).await?;
        if plan.terminal.is_some() {
            session.resize().await;
        }
        Ok(session)
    }

    async fn begin(&self, work: &Work, stream: &str) -> Result<(), SessionError> {
        let (stdin, stdout, stderr, terminal) = match &self.ends {
            Ends::Separate { stdin: Some(_), .. } => (stream, stream, stream, false),
            Ends::Separate { stdin: None, .. } => ("", stream, stream, false),
            Ends::Terminal { .. } => (stream, stream, "", true),
        };
        let (stdin, stdout, stderr) = (stdin.to_owned(), stdout.to_owned(), stderr.to_owned());
        let (id, exec_id) = (self.container.clone(), self.exec.clone());
        match work {
            Work::Create(plan) => {
                let bundle = plan.bundle.to_string_lossy().into_owned();
                let options = Some(container_options(plan)?).into();
                let rest = CreateTaskRequest::default();
                let request =
                    CreateTaskRequest { id, bundle, terminal, stdin, stdout, stderr, options, ..rest };
                self.server.task.create(bounded(), &request).await.map_err(CallError::from)?;
            }
            Work::Exec { plan, .. } => {
                let spec = Some(exec_spec(plan)?).into();
                let start = StartRequest { id: id.clone(), exec_id: exec_id.clone(), ..Default::default() };
                let rest = ExecProcessRequest::default();
                let request =
                    ExecProcessRequest { id, exec_id, terminal, stdin, stdout, stderr, spec, ..rest };
                self.server.task.exec(bounded(), &request).await.map_err(CallError::from)?;
                self.server.task.start(bounded(), &start).await.map_err(CallError::from)?;
            }
        }
        Ok(())
    }

    /// Pumps and relays until the process has ended and its output is delivered. The exit code is the process's, or
    /// 128 and the signal that killed it.
    pub async fn run(self, mut relay: Relay) -> u8 {
        let Self { server, container, exec, ends } = self;
        let relayed = Relayed { server: &server, container: &container, exec: &exec };
        let (outputs, terminal) = match start_pumps(ends) {
            Ok(started) => started,
            Err(error) => {
                say(&format!("cannot pump standard streams: {error}"));
                return KILLED;
            }
        };
        let request = WaitProcessRequest {
            container_id: container.clone(),
            exec_id: exec.clone(),
            ..Default::default()
        };
        let exit = server.sandbox.wait_process(unbounded(), &request);
        tokio::pin!(exit);
        let exit = loop {
            tokio::select! {
                exit = &mut exit => break exit,
                signal = relay.next() => relayed.signal(signal, terminal.as_ref().map(|t| t.as_fd())).await,
            }
        };
        match exit.map_err(CallError::from) {
            Ok(exit) if exit.sandbox_failure.is_empty() => {
                tokio::select! {
                    () = delivered(outputs, &exit) => {}
                    // The process is gone: a signal can only mean us.
                    _ = stopped(&mut relay) => {}
                }
                exit_code(&exit)
            }
            Ok(exit) => {
                let _ = tokio::time::timeout(LAST_OUTPUT, ended(outputs)).await;
                say(&format!("the sandbox died: {}", exit.sandbox_failure));
                exit_code(&exit)
            }
            Err(error) => {
                let _ = tokio::time::timeout(LAST_OUTPUT, ended(outputs)).await;
                say(&error.to_string());
                KILLED
            }
        }
    }

    async fn resize(&self) {
        if let Ends::Terminal { input, .. } = &self.ends {
            let relayed = Relayed { server: &self.server, container: &self.container, exec: &self.exec };
            relayed.resize(input.as_fd()).await;
        }
    }
}

/// Who the signals are for.
struct Relayed<'a> {
    server: &'a Server,
    container: &'a str,
    exec: &'a str,
}

impl Relayed<'_> {
    /// A signal that comes too late has nobody to go to; `wait` says so in a moment.
    async fn signal(&self, signal: i32, terminal: Option<BorrowedFd<'_>>) {
        if signal == libc::SIGWINCH
            && let Some(terminal) = terminal
        {
            return self.resize(terminal).await;
        }
        let (id, exec_id) = (self.container.to_owned(), self.exec.to_owned());
        let request = KillRequest { id, exec_id, signal: signal.unsigned_abs(), ..Default::default() };
        let _ = self.server.task.kill(bounded(), &request).await;
    }

    async fn resize(&self, terminal: BorrowedFd<'_>) {
        let Some((columns, rows)) = console::size(terminal) else { return };
        let (id, exec_id) = (self.container.to_owned(), self.exec.to_owned());
        let (width, height) = (columns.into(), rows.into());
        let request = ResizePtyRequest { id, exec_id, width, height, ..Default::default() };
        let _ = self.server.task.resize_pty(bounded(), &request).await;
    }
}

fn duplicate(number: u32, fd: BorrowedFd<'_>) -> Result<OwnedFd, SessionError> {
    rustix::io::fcntl_dupfd_cloexec(fd, 3)
        .map_err(|errno| SessionError::Standard { number, source: errno.into() })
}

fn separate(sandbox: &SandboxDir, token: &bulkhead_protocol::id::StreamToken) -> Result<Ends, SessionError> {
    // A caller may close its standard input; the process then has none either.
    let stdin = duplicate(0, rustix::stdio::stdin()).ok();
    let stdout = duplicate(1, rustix::stdio::stdout())?;
    let stderr = duplicate(2, rustix::stdio::stderr())?;
    let mut kinds = vec![Stream::Stdout, Stream::Stderr];
    if stdin.is_some() {
        kinds.push(Stream::Stdin);
    }
    let mut opened = streams::open(sandbox, token, &kinds)?.into_iter();
    let mut next = || {
        opened.next().ok_or(SessionError::Standard { number: 0, source: io::ErrorKind::InvalidData.into() })
    };
    let (out, err) = (next()?, next()?);
    let stdin = stdin.map(|fd| Ok::<_, SessionError>((fd, next()?))).transpose()?;
    Ok(Ends::Separate { stdin, stdout: (out, stdout), stderr: (err, stderr) })
}

fn with_terminal(
    sandbox: &SandboxDir,
    token: &bulkhead_protocol::id::StreamToken,
    terminal: &Terminal,
    plan: &Plan,
) -> Result<Ends, SessionError> {
    let (input, output) = match terminal {
        Terminal::Inherited => {
            (duplicate(0, rustix::stdio::stdin())?, duplicate(1, rustix::stdio::stdout())?)
        }
        Terminal::Console(path) => {
            let size = match &plan.work {
                Work::Create(plan) => plan.guest.process.console_size,
                Work::Exec { plan, .. } => plan.process.console_size,
            };
            let slave = console::open(path, size)
                .map_err(|source| SessionError::Console { path: path.display().to_string(), source })?;
            (duplicate(0, slave.as_fd())?, slave)
        }
    };
    let stream = streams::open(sandbox, token, &[Stream::Tty])?.into_iter().next();
    let stream =
        stream.ok_or(SessionError::Standard { number: 0, source: io::ErrorKind::InvalidData.into() })?;
    Ok(Ends::Terminal { input, output, stream })
}

/// Progress of stdout (or the terminal) and stderr.
type Outputs = [Option<watch::Receiver<Progress>>; 2];

fn start_pumps(ends: Ends) -> io::Result<(Outputs, Option<OwnedFd>)> {
    match ends {
        Ends::Separate { stdin, stdout, stderr } => {
            if let Some((from, to)) = stdin {
                pump::inward(from, to, true)?;
            }
            let outputs =
                [Some(pump::outward(stdout.0, stdout.1)?), Some(pump::outward(stderr.0, stderr.1)?)];
            Ok((outputs, None))
        }
        Ends::Terminal { input, output, stream } => {
            let terminal = rustix::io::fcntl_dupfd_cloexec(&input, 3)?;
            pump::inward(input, stream.try_clone()?, false)?;
            Ok(([Some(pump::outward(stream, output)?), None], Some(terminal)))
        }
    }
}

/// When both outputs have what the process wrote, or will get no more.
async fn delivered(outputs: Outputs, exit: &WaitProcessResponse) {
    for (output, bytes) in outputs.into_iter().zip([exit.stdout_bytes, exit.stderr_bytes]) {
        let Some(mut output) = output else { continue };
        // The sender lives until `ended` is set.
        let reached = output.wait_for(|p| p.ended || p.delivered >= bytes).await.map(|p| *p);
        if let Ok(progress) = reached
            && progress.delivered < bytes
        {
            let lost = bytes - progress.delivered;
            say(&format!("{lost} of {bytes} bytes of output were not taken"));
        }
    }
}

async fn ended(outputs: Outputs) {
    for mut output in outputs.into_iter().flatten() {
        let _ = output.wait_for(|progress| progress.ended).await;
    }
}

async fn stopped(relay: &mut Relay) {
    loop {
        if matches!(relay.next().await, libc::SIGTERM | libc::SIGINT | libc::SIGHUP | libc::SIGQUIT) {
            return;
        }
    }
}

/// Standard error is the container's too; only what the user cannot see otherwise goes there.
fn say(message: &str) {
    note(&format!("bulkhead: {message}"));
}
