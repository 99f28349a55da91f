//! The command's side of a proxy: spawn it into a pid namespace of its own, give it the plan, hear its report.

use std::{
    fs::File,
    io::{self, BufRead as _, BufReader, Write as _},
    os::{
        fd::{AsFd as _, AsRawFd as _},
        unix::{net::UnixStream, process::CommandExt as _},
    },
    process::{Command, ExitStatus},
    time::{Duration, Instant},
};

use bulkhead_sys::namespace::with_children_in_new_pid_namespace;

use super::{COMMAND, CONTROL_FD, Plan, Report};
use crate::{network::Namespace, sandbox::pass_as, store::Process};

#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    #[error("make a pid namespace for the proxy")]
    Namespace { source: io::Error },
    #[error("start the proxy")]
    Spawn { source: io::Error },
    #[error("give the proxy its plan")]
    Plan { source: io::Error },
    #[error("hear the proxy's report")]
    Report { source: io::Error },
    #[error("the proxy died before it was ready")]
    Died,
    #[error("the proxy was not ready after {waited:?}")]
    Silent { waited: Duration },
}

/// The network namespace of a proxy. Callers put interfaces into the one of the pid that they were given.
#[derive(Debug)]
pub enum Network {
    /// Nothing in it, until a caller puts something there.
    Fresh,
    Given(Namespace),
    /// That of the container's own proxy.
    Joined(File),
}

impl Network {
    /// The child enters it before it becomes the proxy.
    fn apply(&self, command: &mut Command) {
        let target = match self {
            Self::Fresh => None,
            Self::Given(namespace) => Some(namespace.as_fd().as_raw_fd()),
            Self::Joined(file) => Some(file.as_raw_fd()),
        };
        let enter = move || {
            // SAFETY: plain system calls, allowed between fork and exec; the descriptor is held by `self`, which the
            // caller keeps until the child is started.
            let done = unsafe {
                match target {
                    None => libc::unshare(libc::CLONE_NEWNET),
                    Some(fd) => libc::setns(fd, libc::CLONE_NEWNET),
                }
            };
            if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
        };
        // SAFETY: the closure only makes system calls; it allocates nothing and takes no lock.
        unsafe { command.pre_exec(enter) };
    }
}

/// A proxy that was started by this command. It outlives the command.
#[derive(Debug)]
pub struct Child {
    child: std::process::Child,
    control: BufReader<UnixStream>,
    /// By the host's pid.
    pub process: Process,
}

impl Child {
    /// # Errors
    /// When it cannot be started; nothing runs then.
    pub fn spawn(plan: &Plan, network: &Network) -> Result<Self, LaunchError> {
        let spawn = |source| LaunchError::Spawn { source };
        let (ours, theirs) = UnixStream::pair().map_err(spawn)?;
        let mut command = Command::new("/proc/self/exe");
        command.arg0("bulkhead").args([COMMAND, plan.id.as_str()]).env_clear();
        // In this order: the number that the socket gets may be that of the namespace.
        network.apply(&mut command);
        pass_as(&mut command, theirs.into(), CONTROL_FD);
        let child = with_children_in_new_pid_namespace(|| command.spawn())
            .map_err(|source| LaunchError::Namespace { source })?
            .map_err(spawn)?;
        // The command holds their end: with it our end would never see theirs close.
        drop(command);
        let process = Process::of(child.id()).map_err(spawn)?;
        let mut line = serde_json::to_vec(plan).map_err(|e| LaunchError::Plan { source: e.into() })?;
        line.push(b'\n');
        let told = (&ours).write_all(&line);
        let child = Self { child, control: BufReader::new(ours), process };
        // A proxy that is dead already has its say through `ready`.
        match told {
            Err(e) if e.kind() != io::ErrorKind::BrokenPipe => Err(LaunchError::Plan { source: e }),
            _ => Ok(child),
        }
    }

    /// Waits for its report; `tick` is called about once a second meanwhile.
    ///
    /// # Errors
    /// When none comes.
    pub fn ready(
        &mut self,
        deadline: Duration,
        mut tick: impl FnMut(Duration),
    ) -> Result<Report, LaunchError> {
        let report = |source| LaunchError::Report { source };
        let begin = Instant::now();
        let socket = self.control.get_ref();
        socket.set_read_timeout(Some(Duration::from_secs(1))).map_err(report)?;
        let mut line = Vec::new();
        loop {
            match self.control.read_until(b'\n', &mut line) {
                Ok(_) if line.ends_with(b"\n") => {
                    return serde_json::from_slice(&line).map_err(|e| report(e.into()));
                }
                Ok(_) => return Err(LaunchError::Died),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => tick(begin.elapsed()),
                Err(e) if e.kind() == io::ErrorKind::ConnectionReset => return Err(LaunchError::Died),
                Err(e) => return Err(report(e)),
            }
            if begin.elapsed() >= deadline {
                return Err(LaunchError::Silent { waited: deadline });
            }
        }
    }

    /// Its exit, once it has ended.
    ///
    /// # Errors
    /// As for waitpid(2).
    pub fn try_wait(&mut self) -> io::Result<Option<ExitStatus>> {
        self.child.try_wait()
    }
}
