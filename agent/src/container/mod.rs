//! Containers as the agent sees them: made parked, released, entered by further processes, their cgroup.
//!
//!   ContainerSpec ─▶ plan ─pipe▶ `/proc/self/exe container-init` ─▶ namespaces, mounts, caps … ─▶ parked ─gate▶ exec
//!
//! Nothing here waits for a child: `reaper` does, for the pid that is answered. The caller holds
//! `Reaper::expect_children()` around `create` and `exec`, so helpers in between (a process that forks the real
//! init and exits) may be made freely and are reaped unseen. Never `Child::wait`, never tokio::process.
//! Our own ends of stdio belong to `stdio`; here only the child's ends appear.

pub mod init;

use std::{io, os::fd::OwnedFd};

use bulkhead_protocol::{
    container::{ContainerSpec, ProcessSpec},
    id::ContainerId,
};

/// A step of container set-up that failed: which, on what, and why. Shown to the user word for word.
#[derive(Debug, thiserror::Error)]
pub enum ContainerError {
    #[error("{step} {object}")]
    Step { step: &'static str, object: String, source: io::Error },
}

/// The child's ends. With `terminal` all three are /dev/null: the pty is made in the container's devpts and its
/// master comes back as `pty_master`. `console_size` is applied by container-init before the exec.
#[derive(Debug)]
pub struct ChildStdio {
    pub stdin: OwnedFd,
    pub stdout: OwnedFd,
    pub stderr: OwnedFd,
    pub terminal: bool,
}

/// A container whose init is parked before exec.
#[derive(Debug)]
pub struct Created {
    /// In the root pid namespace.
    pub pid: u32,
    pub pidfd: OwnedFd,
    pub cgroup: Cgroup,
    pub gate: ParkedInit,
    pub pty_master: Option<OwnedFd>,
    /// CLOCK_BOOTTIME when the rootfs was mounted.
    pub rootfs_mounted_ns: u64,
}

/// What `exec` needs of the container it enters.
#[derive(Debug)]
pub struct Running {
    pub id: ContainerId,
    pub pid: u32,
    pub pidfd: OwnedFd,
    pub cgroup: Cgroup,
}

/// A further process whose exec has succeeded.
#[derive(Debug)]
pub struct Spawned {
    pub pid: u32,
    pub pidfd: OwnedFd,
    pub pty_master: Option<OwnedFd>,
}

/// Lives between `create` and `start`. Releasing consumes it; dropping it without releasing ends the init.
#[derive(Debug)]
pub struct ParkedInit {}

impl ParkedInit {
    /// Answers when the exec has succeeded, or with why it failed.
    pub async fn release(self) -> Result<(), ContainerError> {
        Err(unfinished("start"))
    }
}

/// The container's own cgroup.
#[derive(Debug)]
pub struct Cgroup {}

impl Cgroup {
    /// SIGKILL to every process in it and below.
    pub fn kill_all(&self) -> io::Result<()> {
        Ok(())
    }

    /// Pids in it and below, in the root pid namespace.
    pub fn processes(&self) -> io::Result<Vec<u32>> {
        Ok(Vec::new())
    }

    /// How often the out-of-memory killer took a process of it.
    pub fn oom_kills(&self) -> io::Result<u64> {
        Ok(0)
    }

    /// Removes it and all below it. `EBUSY` while a process is left.
    pub fn remove(&self) -> io::Result<()> {
        Ok(())
    }
}

pub async fn create(
    id: &ContainerId,
    spec: ContainerSpec,
    stdio: ChildStdio,
) -> Result<Created, ContainerError> {
    let _ = (id, spec, stdio);
    Err(unfinished("create"))
}

pub async fn exec(
    container: &Running,
    process: ProcessSpec,
    stdio: ChildStdio,
) -> Result<Spawned, ContainerError> {
    let _ = (container, process, stdio);
    Err(unfinished("exec"))
}

fn unfinished(step: &'static str) -> ContainerError {
    ContainerError::Step { step, object: "container".into(), source: io::ErrorKind::Unsupported.into() }
}
