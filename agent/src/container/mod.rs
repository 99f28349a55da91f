//! Containers as the agent sees them: made parked, released, entered by further processes, their cgroup.
//!
//!   ContainerSpec ─▶ plan ─pipe▶ `/proc/self/exe container-init` ─▶ namespaces, mounts, caps … ─▶ parked ─gate▶ exec
//!
//! Nothing here waits for a child: `reaper` does, for the pid that is answered. The caller holds
//! `Reaper::expect_children()` around `create` and `exec`, so helpers in between (a process that forks the real
//! init and exits) may be made freely and are reaped unseen. Never `Child::wait`, never tokio::process.
//! Our own ends of stdio belong to `stdio`; here only the child's ends appear.

mod cgroup;
mod confinement;
mod console;
mod copy_up;
mod credentials;
mod device_filter;
mod devices;
mod error;
mod exec;
mod freezer;
pub mod init;
mod launch;
mod masked;
mod message;
mod mounts;
mod namespaces;
mod path;
mod plan;
mod program;
mod rlimits;
mod rootfs;
mod scheduling;
mod start_hooks;
pub mod stats;
mod sysctl;
mod watch;

use std::{
    os::fd::{AsFd as _, OwnedFd},
    path::PathBuf,
};

use bulkhead_protocol::{
    container::{Confinement, ContainerSpec, ProcessSpec},
    id::ContainerId,
};
use bulkhead_sys::pidfd::by_number;

pub use self::{
    cgroup::Cgroup,
    error::{Cause, ContainerError},
};
use self::{
    launch::{Gate, Launched, Orders, end, launch},
    plan::Places,
};

/// Where the guest keeps what containers are made of. Tests point elsewhere.
#[derive(Debug, Clone)]
pub struct Layout {
    /// What is run as `container-init`.
    pub program: PathBuf,
    /// The root of the share.
    pub share: PathBuf,
    /// The cgroup2 mount.
    pub cgroups: PathBuf,
}

impl Layout {
    pub fn guest() -> Self {
        Self {
            program: "/proc/self/exe".into(),
            share: crate::boot::SHARE.into(),
            cgroups: crate::boot::CGROUP.into(),
        }
    }
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
    pub confinement: Confinement,
}

/// What `exec` needs of the container it enters.
#[derive(Debug)]
pub struct Running {
    pub id: ContainerId,
    pub pid: u32,
    pub pidfd: OwnedFd,
    pub cgroup: Cgroup,
    pub confinement: Confinement,
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
pub struct ParkedInit(Gate);

impl ParkedInit {
    /// Answers when the exec has succeeded, or with why it failed.
    pub async fn release(self) -> Result<(), ContainerError> {
        self.0.open().await
    }
}

/// Makes a container and parks its init; `join` is a process of the container that `spec.join` names. On an error nothing
/// of it is left.
pub async fn create_in(
    layout: &Layout,
    id: &ContainerId,
    spec: &ContainerSpec,
    stdio: ChildStdio,
    join: Option<&OwnedFd>,
) -> Result<Created, ContainerError> {
    check_terminal(&spec.process, &stdio)?;
    let cgroup = Cgroup::of(&layout.cgroups, id);
    let spec = devices::renumbered(spec)?;
    let plan = plan::create(Places { share: &layout.share, cgroup: cgroup.path() }, &spec)?;
    cgroup.make(&layout.cgroups)?;
    let unfinished = Unfinished { cgroup, finished: false };
    let orders = Orders {
        program: &layout.program,
        plan: &plan,
        stdio,
        cgroup: unfinished.cgroup.open()?,
        target: join,
    };
    let Launched { pid, pidfd, pty_master, rootfs_mounted_ns, gate } = launch(orders).await?;
    let apply = |pid| {
        rlimits::apply(pid, &spec.process.rlimits)
            .and_then(|()| scheduling::apply(pid, &spec.process.scheduling))
    };
    let limited = unfinished
        .cgroup
        .limit(&spec.resources)
        .and_then(|()| by_number(pid, pidfd.as_fd(), apply).unwrap_or(Err(ContainerError::Died)));
    if let Err(error) = limited {
        end(&pidfd).await;
        return Err(error);
    }
    Ok(Created {
        pid,
        pidfd,
        cgroup: unfinished.finish(),
        gate: ParkedInit(gate),
        pty_master,
        rootfs_mounted_ns,
        confinement: spec.confinement.clone(),
    })
}

/// Runs one more process in a container; answers when its exec has succeeded.
pub async fn exec(
    container: &Running,
    process: ProcessSpec,
    stdio: ChildStdio,
) -> Result<Spawned, ContainerError> {
    exec_in(&Layout::guest(), container, &process, "", stdio).await
}

/// `exec` with the places of `layout`, in a cgroup below the container's; an empty one means the container's own.
pub async fn exec_in(
    layout: &Layout,
    container: &Running,
    process: &ProcessSpec,
    cgroup: &str,
    stdio: ChildStdio,
) -> Result<Spawned, ContainerError> {
    check_terminal(process, &stdio)?;
    exec::exec(layout, container, process, cgroup, stdio).await
}

fn check_terminal(process: &ProcessSpec, stdio: &ChildStdio) -> Result<(), ContainerError> {
    if process.terminal == stdio.terminal {
        return Ok(());
    }
    Err(ContainerError::refused("process.terminal and the streams that were opened do not agree"))
}

/// The cgroup of a container that is being made: goes with it if that fails.
#[derive(Debug)]
struct Unfinished {
    cgroup: Cgroup,
    finished: bool,
}

impl Unfinished {
    fn finish(mut self) -> Cgroup {
        self.finished = true;
        self.cgroup.clone()
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if self.finished {
            return;
        }
        // Its processes were ended; a helper that is still exiting makes the removal fail, and then the next
        // container of this id removes it.
        if let Err(error) = self.cgroup.kill_all().and_then(|()| self.cgroup.remove()) {
            crate::say!("remove the cgroup of a container that was not made: {error}");
        }
    }
}
