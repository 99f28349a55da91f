//! The host process that stands for one process in the guest: callers wait for it, signal it and read its pid.
//!
//!   fd 0, 1, 2 or a terminal ◀─pump─▶ vsock streams ◀──▶ agent        (bytes, never through the server)
//!   signals, window size ─▶ server ─▶ agent            exit of the process ─▶ exit code of this one
//!
//! It is made by `create`, `run` and `exec`, as pid 1 of a pid namespace of its own and in a mount namespace that shows
//! the container's rootfs and volumes (`isolate`), and in the network namespace that the VM's devices come from: callers
//! enter `/proc/PID/ns/mnt` and believe to be in the container.
//! When it dies the server kills the process; when the server dies it ends within a second, with 137. It exits when it
//! has delivered exactly the bytes that the process wrote. `exec` in the foreground is the same without a process.

mod console;
mod isolate;
mod launch;
mod pump;
mod session;
mod signals;
mod streams;

use std::{
    fs::File,
    io::{self, BufRead as _, BufReader, Read as _, Write as _},
    os::{
        fd::{FromRawFd as _, OwnedFd},
        unix::net::UnixStream,
    },
    path::PathBuf,
};

use bulkhead_protocol::id::{ContainerId, ExecId, SandboxId};
use serde::{Deserialize, Serialize};

pub use console::{RawMode, send_fd};
pub use isolate::IsolateError;
pub use launch::{Child, LaunchError, Network};
pub use session::{Session, SessionError};
pub use signals::{FORWARDED, Relay};
pub use streams::random_hex;

use crate::{
    container::{ContainerPlan, ExecPlan},
    sandbox::oom_score::{self, OomScoreError},
    shed::{self, ShedError},
    store::{Role, SandboxDir, StateDir, StateError},
};

/// The word after which `main` below is meant.
pub const COMMAND: &str = "proxy";
/// The descriptor on which a proxy finds the socket to the command that made it.
const CONTROL_FD: i32 = 3;
/// Bytes of a plan: a container's spec and little more.
const PLAN_MAX: u64 = bulkhead_protocol::limits::CONTAINER_SPEC as u64 * 2;

/// What a proxy is to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// Holds all state directories; absolute.
    pub root: PathBuf,
    pub sandbox: SandboxId,
    pub id: ContainerId,
    pub work: Work,
    pub terminal: Option<Terminal>,
    /// Leave the caller's session: nobody is in the foreground with it.
    pub detach: bool,
    /// What its mount namespace shows.
    pub view: PathBuf,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Work {
    Create(Box<ContainerPlan>),
    Exec { exec_id: ExecId, plan: Box<ExecPlan> },
}

impl Work {
    fn container(&self) -> Option<&ContainerPlan> {
        match self {
            Self::Create(container) => Some(container),
            Self::Exec { .. } => None,
        }
    }

    pub(crate) fn oom_score_adj(&self) -> Option<i32> {
        match self {
            Self::Create(container) => container.guest.process.oom_score_adj,
            Self::Exec { plan, .. } => plan.process.oom_score_adj,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Terminal {
    /// The one on standard input; the command has put it into raw mode.
    Inherited,
    /// A new one, whose master goes to this socket; absolute.
    Console(PathBuf),
}

impl Terminal {
    /// Whether the guest's terminal leaves line feeds to this one. A caller with a socket has the only terminal that it knows.
    pub fn adds_carriage_returns(&self) -> bool {
        matches!(self, Self::Inherited)
    }
}

/// What it says to the command, once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Report {
    /// The container is parked, or the exec runs.
    Ready,
    Failed {
        message: String,
        hint: Option<String>,
    },
}

#[derive(Debug, thiserror::Error)]
enum ProxyError {
    #[error("read the plan")]
    Plan { source: io::Error },
    #[error(transparent)]
    State(#[from] StateError),
    #[error("start")]
    Start { source: io::Error },
    #[error(transparent)]
    Session(#[from] SessionError),
    #[error(transparent)]
    OomScore(#[from] OomScoreError),
    #[error(transparent)]
    Isolate(#[from] IsolateError),
    #[error(transparent)]
    Shed(#[from] ShedError),
}

impl ProxyError {
    fn report(&self) -> Report {
        let hint = match self {
            Self::Session(error) => error.hint(),
            Self::State(error) => error.hint(),
            _ => None,
        };
        Report::Failed { message: bulkhead_sys::chain(self), hint: hint.map(Into::into) }
    }
}

/// The whole process: its exit code.
pub fn main() -> u8 {
    // For ps and top: the kernel took the name from /proc/self/exe.
    let _ = rustix::thread::set_name(c"bulkhead-proxy");
    // SAFETY: `launch` made this descriptor for us, and this is the only place that takes it.
    let control = UnixStream::from(unsafe { OwnedFd::from_raw_fd(CONTROL_FD) });
    match run(&control) {
        Ok(code) => code,
        Err(error) => {
            tell(&control, &error.report());
            1
        }
    }
}

fn run(control: &UnixStream) -> Result<u8, ProxyError> {
    let plan = read_plan(control).map_err(|source| ProxyError::Plan { source })?;
    shed::caller()?;
    shed::bounding_set();
    let start = |source| ProxyError::Start { source };
    // Not for this one's own children: there are none.
    rustix::io::fcntl_setfd(control, rustix::io::FdFlags::CLOEXEC).map_err(|e| start(e.into()))?;
    if matches!(plan.work, Work::Create(_)) {
        StateDir::open(&plan.root, &plan.id)?.journal().append_self(Role::Proxy)?;
    }
    if let Some(score) = plan.work.oom_score_adj() {
        oom_score::set_own(score)?;
    }
    if plan.detach {
        rustix::process::setsid().map_err(|e| start(e.into()))?;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(start)?;
    // Opened here: the cgroup that this process comes into may forbid devices.
    let null = File::options().read(true).write(true).open("/dev/null").map_err(start)?;
    runtime.block_on(async {
        let relay = Relay::install().map_err(start)?;
        let sandbox = SandboxDir::open(&plan.root, &plan.sandbox)?.ok_or(SessionError::NoSandbox)?;
        let session = Session::open(&sandbox, &plan).await?;
        if matches!(plan.terminal, Some(Terminal::Console(_))) {
            let_go_of_stdio(&null).map_err(start)?;
        }
        // Before the command says that the container is there: from then on callers may enter our namespaces.
        isolate::enter(&plan.view, plan.work.container())?;
        tell(control, &Report::Ready);
        Ok(session.run(relay).await)
    })
}

fn read_plan(control: &UnixStream) -> io::Result<Plan> {
    let mut line = Vec::new();
    BufReader::new(control.take(PLAN_MAX)).read_until(b'\n', &mut line)?;
    Ok(serde_json::from_slice(&line)?)
}

/// The caller has the terminal; a pipe of its that we held as well would never end.
fn let_go_of_stdio(null: &File) -> io::Result<()> {
    rustix::stdio::dup2_stdin(null)?;
    rustix::stdio::dup2_stdout(null)?;
    rustix::stdio::dup2_stderr(null)?;
    Ok(())
}

/// The command may be gone; then the server notices, and ends what was begun.
fn tell(mut control: &UnixStream, report: &Report) {
    if let Ok(mut line) = serde_json::to_vec(report) {
        line.push(b'\n');
        let _ = control.write_all(&line);
    }
    let _ = control.shutdown(std::net::Shutdown::Both);
}

#[cfg(test)]
mod tests;
