//! The agent's side of container-init: starts it, hears its reports, holds its gate.
//!
//! `launch` answers when the process is parked just before exec, or with why it is not; by then nothing of it
//! is left running. The process is our child (the reaper's to wait for), the launcher a helper that is reaped
//! unseen. Every wait has a deadline; a dropped future or gate closes the socket, which ends the process.

use std::{
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    path::PathBuf,
    process::{Command, Stdio},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bulkhead_protocol::{
    container::ProcessSpec,
    limits,
    packet::{PacketError, PacketSocket},
};
use rustix::process::{Signal, pidfd_send_signal};
use tokio::{
    io::{Interest, unix::AsyncFd},
    time::timeout,
};

use super::{
    error::{ContainerError, During},
    message::{Go, Order, Report, write_plan},
    plan::Plan,
};

/// For the whole set-up. Shorter than the RPC that waits for it, so that the user reads our words.
const SETUP: Duration = limits::RPC.saturating_sub(Duration::from_secs(10));

/// The child's ends. With `terminal` all three are /dev/null: the pty is made in the container's devpts and its
/// master comes back as `pty_master`. `console_size` is applied by container-init before the exec.
#[derive(Debug)]
pub struct ChildStdio {
    pub stdin: OwnedFd,
    pub stdout: OwnedFd,
    pub stderr: OwnedFd,
    pub terminal: bool,
}

impl ChildStdio {
    /// # Errors
    /// A terminal is asked for and streams were opened, or the other way round.
    pub(super) fn fits(&self, process: &ProcessSpec) -> Result<(), ContainerError> {
        if process.terminal == self.terminal {
            return Ok(());
        }
        Err(ContainerError::refused("process.terminal: the streams that were opened do not fit it"))
    }
}

const START: &str = "start";
const WHAT: &str = "container-init";

/// What a launch needs.
#[derive(Debug)]
pub(super) struct LaunchRequest<'a> {
    pub(super) launcher: &'a Launcher,
    pub(super) plan: &'a Plan,
    /// To be closed when the process is there: only then does their end of file mean that of the process.
    pub(super) stdio: &'a ChildStdio,
    /// The directory of the cgroup that the process is forked into.
    pub(super) cgroup: OwnedFd,
    /// Whose namespaces to join.
    pub(super) target: Option<&'a OwnedFd>,
}

/// A process that is parked before exec.
#[derive(Debug)]
pub(super) struct Launched {
    pub(super) pid: u32,
    pub(super) pidfd: OwnedFd,
    pub(super) pty_master: Option<OwnedFd>,
    pub(super) gate: Gate,
}

/// The open end of a parked process' socket.
#[derive(Debug)]
pub(super) struct Gate(AsyncFd<PacketSocket>);

pub(super) async fn launch(request: LaunchRequest<'_>) -> Result<Launched, ContainerError> {
    let gate = Gate(order(request)?);
    let mut forked = None;
    let answer = timeout(SETUP, reports(&gate, &mut forked)).await;
    let error = match answer {
        Ok(Ok(pty_master)) => match forked {
            Some((pid, pidfd)) => return Ok(Launched { pid, pidfd, pty_master, gate }),
            None => ContainerError::Died,
        },
        Ok(Err(error)) => error,
        Err(_) => ContainerError::Deadline { seconds: SETUP.as_secs() },
    };
    if let Some((_, pidfd)) = forked {
        end(&pidfd).await;
    }
    Err(error)
}

impl Gate {
    /// Lets the process exec; answers when it has, or with why it could not.
    pub(super) async fn open(self) -> Result<(), ContainerError> {
        self.0.get_ref().send(&Go, &[]).during("release", "process")?;
        match timeout(SETUP, self.receive()).await {
            Err(_) => Err(ContainerError::Deadline { seconds: SETUP.as_secs() }),
            // Exec has closed the socket.
            Ok(Err(PacketError::Closed)) => Ok(()),
            Ok(Ok((Report::Failed(error), _))) => Err(error),
            Ok(Ok((other, _))) => Err(format!("unexpected report {other:?}")).during("release", "process"),
            Ok(Err(error)) => Err(error).during("release", "process"),
        }
    }

    async fn receive(&self) -> Result<(Report, Vec<OwnedFd>), PacketError> {
        let receive = |socket: &PacketSocket| match socket.receive() {
            Err(PacketError::Receive { source }) if source.kind() == io::ErrorKind::WouldBlock => Err(source),
            answer => Ok(answer),
        };
        self.0
            .async_io(Interest::READABLE, receive)
            .await
            .unwrap_or_else(|source| Err(PacketError::Receive { source }))
    }
}

/// Starts container-init: when it is asked to, or one of them ahead. Clones share that one.
#[derive(Debug, Clone)]
pub struct Launcher {
    program: PathBuf,
    ahead: Arc<Mutex<Option<PacketSocket>>>,
}

impl Launcher {
    /// `program` is run as `container-init`.
    pub fn new(program: impl Into<PathBuf>) -> Self {
        Self { program: program.into(), ahead: Arc::default() }
    }

    /// Starts a process for the next launch, which waits for its order; answers its pid. The process has nothing of a
    /// container, and ends when this is dropped.
    ///
    /// # Errors
    /// The process cannot be started. The next launch tries again.
    pub fn start_ahead(&self) -> Result<u32, ContainerError> {
        let (socket, pid) = self.start()?;
        *self.ahead() = Some(socket);
        Ok(pid)
    }

    /// The socket of a process that has its order.
    fn send(&self, order: &Order, fds: &[BorrowedFd<'_>]) -> Result<PacketSocket, ContainerError> {
        let ahead = self.ahead().take();
        // A process that was started ahead may have died since: the kernel was out of memory, for instance.
        if let Some(socket) = ahead
            && socket.send(order, fds).is_ok()
        {
            return Ok(socket);
        }
        let (socket, _) = self.start()?;
        socket.send(order, fds).during(START, WHAT)?;
        Ok(socket)
    }

    /// The child is not waited for here: the reaper does that.
    fn start(&self) -> Result<(PacketSocket, u32), ContainerError> {
        let (ours, theirs) = PacketSocket::pair().during(START, WHAT)?;
        let child = Command::new(&self.program)
            .arg("container-init")
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::null())
            .stderr(Stdio::inherit())
            .spawn()
            .during(START, self.program.display())?;
        Ok((ours, child.id()))
    }

    fn ahead(&self) -> MutexGuard<'_, Option<PacketSocket>> {
        // Each critical section is one assignment.
        self.ahead.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn order(request: LaunchRequest<'_>) -> Result<AsyncFd<PacketSocket>, ContainerError> {
    let LaunchRequest { launcher, plan, stdio, cgroup, target } = request;
    let plan = write_plan(plan)?;
    let mut fds =
        vec![plan.as_fd(), stdio.stdin.as_fd(), stdio.stdout.as_fd(), stdio.stderr.as_fd(), cgroup.as_fd()];
    fds.extend(target.map(AsFd::as_fd));
    let socket = launcher.send(&Order { join: target.is_some() }, &fds)?;
    rustix::io::ioctl_fionbio(&socket, true).during(START, WHAT)?;
    watch(socket).during(START, WHAT)
}

fn watch<T: AsRawFd>(fd: T) -> io::Result<AsyncFd<T>> {
    // SAFETY: only `PacketSocket` and `BorrowedFd` come here. Both stand for one descriptor that stays open as long
    // as they live, and answer it each time.
    let watched = unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) };
    watched.map_err(|error| error.into_parts().1)
}

/// Hears reports until the process is parked: the master of its terminal, if it has one.
async fn reports(
    gate: &Gate,
    forked: &mut Option<(u32, OwnedFd)>,
) -> Result<Option<OwnedFd>, ContainerError> {
    let mut pty_master = None;
    loop {
        let (report, mut fds) = match gate.receive().await {
            Ok(received) => received,
            Err(PacketError::Closed) => return Err(ContainerError::Died),
            Err(error) => return Err(error).during("hear from", "container-init"),
        };
        match report {
            Report::Forked { pid } => {
                let pidfd = fds.pop().ok_or("its pidfd is missing").during("hear from", "container-init")?;
                *forked = Some((pid, pidfd));
            }
            Report::Warning(text) => crate::say!("container-init: {text}"),
            Report::Master => pty_master = fds.pop(),
            Report::Parked => return Ok(pty_master),
            Report::Failed(error) => return Err(error),
        }
    }
}

/// Kills a process and waits until it is dead: its cgroup can be removed then.
pub(super) async fn end(pidfd: &OwnedFd) {
    // It may be dead already; nothing can be done about any other error, and the wait below has its deadline.
    let _ = pidfd_send_signal(pidfd, Signal::KILL);
    if let Ok(dead) = watch(pidfd.as_fd()) {
        let _ = timeout(limits::SHUTDOWN, dead.readable()).await;
    }
}
