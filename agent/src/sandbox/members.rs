//! The processes of a container's cgroup: signalled or listed all together.
//!
//! The kernel lists numbers. One may be another process's by the time that it is used, so the cgroup is listed again: a
//! number that went to a process outside is not in it any more.

use std::{collections::HashSet, io, path::Path};

use rustix::process::{Pid, PidfdFlags, pidfd_open, pidfd_send_signal};

use crate::{
    container::Cgroup,
    process::{SignalNumber, list},
};

/// Sends a signal to each; number 0 only lists them.
pub(super) fn signal(cgroup: &Cgroup, signal: SignalNumber) -> io::Result<()> {
    let open = |pid: u32| {
        let number = Pid::from_raw(i32::try_from(pid).ok()?)?;
        // One that has just exited needs no signal.
        Some((pid, pidfd_open(number, PidfdFlags::empty()).ok()?))
    };
    let opened: Vec<_> = cgroup.processes()?.into_iter().filter_map(open).collect();
    let still: HashSet<u32> = cgroup.processes()?.into_iter().collect();
    // A number that is listed again after its process has gone stands for another one of the container, which has come
    // since: the pidfd is then of the one that has gone, and nobody is hit.
    for (_, pidfd) in opened.into_iter().filter(|(pid, _)| still.contains(pid)) {
        if let Some(signal) = signal.get() {
            let _ = pidfd_send_signal(pidfd, signal);
        }
    }
    Ok(())
}

/// What the kernel says of each.
pub(super) fn list(cgroup: &Cgroup) -> io::Result<Vec<list::Info>> {
    let read = |pid| list::read(Path::new("/proc"), pid);
    let mut infos: Vec<_> = cgroup.processes()?.into_iter().filter_map(read).collect();
    let still: HashSet<u32> = cgroup.processes()?.into_iter().collect();
    infos.retain(|info| still.contains(&info.pid));
    Ok(infos)
}
