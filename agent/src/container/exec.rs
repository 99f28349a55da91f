//! A further process in a container: into the namespaces and the cgroup of its init, then exec.

use std::os::fd::{AsFd as _, OwnedFd};

use bulkhead_protocol::container::ProcessSpec;
use bulkhead_sys::pidfd::by_number;

use super::{
    error::ContainerError,
    launch::{ChildStdio, LaunchRequest, Launched, end, launch},
    layout::Layout,
    namespaces, plan, rlimits,
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

/// Runs one more process in a container, in a cgroup below the container's; an empty one means the container's own. Answers when
/// its exec has succeeded.
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
    let plan = plan::join(namespaces, process, &container.confinement)?;
    let request = LaunchRequest {
        launcher: &layout.launcher,
        plan: &plan,
        stdio,
        cgroup: container.cgroup.open_below(cgroup)?,
        target: Some(&container.pidfd),
    };
    let Launched { pid, pidfd, pty_master, gate, .. } = launch(request).await?;
    let limited = by_number(pid, pidfd.as_fd(), |pid| {
        rlimits::apply(pid, &process.rlimits)
            .and_then(|()| scheduling::apply_to_exec(pid, &process.scheduling))
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
