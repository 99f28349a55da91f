//! A further process in a container: into the namespaces and the cgroup of its init, then exec.

use std::os::fd::{AsFd as _, OwnedFd};

use bulkhead_protocol::container::ProcessSpec;
use bulkhead_sys::pidfd::by_number;

use super::{
    error::ContainerError,
    launch::{ChildStdio, LaunchRequest, Launched, end, launch},
    layout::Layout,
    namespaces,
    plan::{self, Inherited},
    rlimits,
    running::Running,
    scheduling,
};

/// A further process whose exec has succeeded.
#[derive(Debug)]
pub struct Spawned {
    pub pid: u32,
    pub pidfd: OwnedFd,
    pub pty_master: Option<OwnedFd>,
}

/// How often the cgroup of the init is looked for: the container moves its init, and removes cgroups.
const CGROUP_TRIES: usize = 8;

/// Runs one more process in a container, in a cgroup below the container's; an empty one means the container's own. Where that
/// takes no process, because the container passes controllers on to cgroups below it, the cgroup of its init is the place.
/// Answers when its exec has succeeded.
///
/// # Errors
/// The step that failed. The process is gone then.
pub async fn exec(
    layout: &Layout,
    container: &Running,
    process: &ProcessSpec,
    cgroup: &str,
    stdio: ChildStdio,
) -> Result<Spawned, ContainerError> {
    stdio.fits(process)?;
    let namespaces = namespaces::foreign(container.pid, container.pidfd.as_fd())?;
    let inherited = Inherited { confinement: &container.confinement, uid_mappings: &container.uid_mappings };
    let plan = plan::join(namespaces, process, inherited)?;
    let launch_in = |cgroup| {
        launch(LaunchRequest {
            launcher: &layout.launcher,
            plan: &plan,
            stdio: &stdio,
            cgroup,
            target: Some(&container.pidfd),
        })
    };
    let mut launched = launch_in(container.cgroup.open_below(cgroup)?).await;
    for _ in 0..CGROUP_TRIES {
        if !matches!(launched, Err(ContainerError::CgroupClosed { .. })) {
            break;
        }
        // What was just left by the init may be gone.
        if let Ok(cgroup) = container.cgroup.open_that_of(container.pid, container.pidfd.as_fd()) {
            launched = launch_in(cgroup).await;
        }
    }
    let Launched { pid, pidfd, pty_master, gate } = launched?;
    drop(stdio);
    let limited = by_number(pid, pidfd.as_fd(), |pid| {
        rlimits::apply(pid, process).and_then(|()| scheduling::apply_to_exec(pid, &process.scheduling))
    })
    .unwrap_or(Err(ContainerError::Died));
    let released = match limited {
        Ok(()) => gate.open().await,
        Err(error) => Err(error),
    };
    match released {
        Ok(()) => Ok(Spawned { pid, pidfd, pty_master }),
        Err(error) => {
            end(&pidfd).await;
            Err(error)
        }
    }
}
