//! A further process in a container: into the namespaces and the cgroup of its init, then exec.

use std::os::fd::AsFd as _;

use bulkhead_protocol::container::ProcessSpec;
use bulkhead_sys::pidfd::by_number;

use super::{
    ChildStdio, Layout, Running, Spawned,
    error::ContainerError,
    launch::{self, Orders, end, launch},
    namespaces, plan, rlimits, scheduling,
};

pub(super) async fn exec(
    layout: &Layout,
    container: &Running,
    process: &ProcessSpec,
    cgroup: &str,
    stdio: ChildStdio,
) -> Result<Spawned, ContainerError> {
    let namespaces = namespaces::foreign(container.pid, container.pidfd.as_fd())?;
    let plan = plan::join(namespaces, process, &container.confinement)?;
    let orders = Orders {
        program: &layout.program,
        plan: &plan,
        stdio,
        cgroup: container.cgroup.open_below(cgroup)?,
        target: Some(&container.pidfd),
    };
    let launch::Launched { pid, pidfd, pty_master, gate, .. } = launch(orders).await?;
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
