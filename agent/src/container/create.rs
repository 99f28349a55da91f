//! A new container: plan, cgroup, launch, limits; its init is parked at the end, or nothing of it is left.

use std::os::fd::{AsFd as _, OwnedFd};

use bulkhead_protocol::{
    container::{Confinement, ContainerSpec, IdMapping},
    id::ContainerId,
};
use bulkhead_sys::pidfd::by_number;

use super::{
    cgroup::Cgroup,
    devices,
    error::ContainerError,
    launch::{ChildStdio, Gate, LaunchRequest, Launched, end, launch},
    layout::Layout,
    plan::{self, Places},
    rlimits, scheduling,
    volumes::InUse,
};
use crate::hotplug::Sysfs;

/// A container whose init is parked before exec.
#[derive(Debug)]
pub struct Created {
    /// In the root pid namespace.
    pub pid: u32,
    pub pidfd: OwnedFd,
    pub cgroup: Cgroup,
    pub gate: ParkedInit,
    pub pty_master: Option<OwnedFd>,
    pub confinement: Confinement,
    pub uid_mappings: Vec<IdMapping>,
    /// Held as long as the container is there.
    pub volumes: InUse,
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
pub async fn create(
    layout: &Layout,
    id: &ContainerId,
    spec: &ContainerSpec,
    stdio: ChildStdio,
    join: Option<&OwnedFd>,
) -> Result<Created, ContainerError> {
    stdio.fits(&spec.process)?;
    let cgroup = Cgroup::of(&layout.cgroups, id);
    let disks = devices::disks(spec, &Sysfs::default())?;
    let spec = devices::renumbered(spec, &disks)?;
    let volumes = layout.volumes.take(&layout.share, &spec).await?;
    let (volumes_at, cgroup_at) = (volumes.mounts(), cgroup.path());
    let places = Places { share: &layout.share, volumes: &volumes_at, cgroup: cgroup_at, disks: &disks };
    let plan = plan::create(places, &spec)?;
    cgroup.make(&layout.cgroups)?;
    let unfinished = Unfinished { cgroup, finished: false };
    let request = LaunchRequest {
        launcher: &layout.launcher,
        plan: &plan,
        stdio: &stdio,
        cgroup: unfinished.cgroup.open()?,
        target: join,
    };
    let Launched { pid, pidfd, pty_master, gate } = launch(request).await?;
    drop(stdio);
    let apply = |pid| {
        rlimits::apply(pid, &spec.process).and_then(|()| scheduling::apply(pid, &spec.process.scheduling))
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
        confinement: spec.confinement.clone(),
        uid_mappings: spec.uid_mappings.clone(),
        volumes,
    })
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
