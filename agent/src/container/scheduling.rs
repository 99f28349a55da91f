//! How a process is scheduled, set on the parked process by the agent.
//!
//! From outside and late, as its limits are: realtime policies and classes take a capability of the guest that a
//! process in a user namespace no longer has, and the set-up shall not wait at the lowest priority. Only the CPUs that
//! an exec begins on are the launcher's own affair, which its child inherits.

use bulkhead_protocol::{
    container::{Cpus, IoPriority, Scheduler, Scheduling},
    cpu_list::CpuList,
};

use super::error::{ContainerError, During};

/// linux/ioprio.h.
const IOPRIO_WHO_PROCESS: libc::c_long = 1;
const IOPRIO_CLASS_SHIFT: u32 = 13;

pub(super) fn apply(pid: u32, scheduling: &Scheduling) -> Result<(), ContainerError> {
    if let Some(scheduler) = &scheduling.scheduler {
        set_scheduler(pid, scheduler)?;
    }
    if let Some(priority) = scheduling.io_priority {
        set_io_priority(pid, priority)?;
    }
    Ok(())
}

/// `apply`, and the CPUs from now on.
pub(super) fn apply_to_exec(pid: u32, scheduling: &Scheduling) -> Result<(), ContainerError> {
    if let Some(cpus) = scheduling.exec_cpus {
        match cpus.last {
            Some(cpus) => set_cpus(pid, cpus)?,
            // The kernel takes those away that the cgroup does not allow.
            None => set_affinity(pid, u64::MAX).during("set CPUs", "to all")?,
        }
    }
    apply(pid, scheduling)
}

/// For the launcher itself.
pub(super) fn set_own_cpus(cpus: Cpus) -> Result<(), ContainerError> {
    set_cpus(0, cpus)
}

/// The kernel would leave out what it does not have, and only complain when nothing is left.
fn set_cpus(pid: u32, cpus: Cpus) -> Result<(), ContainerError> {
    const STEP: &str = "set CPUs";
    let online = online_cpus().during(STEP, "online")?;
    let missing = cpus.get() & !online;
    if missing != 0 {
        let cause = format!("the guest has no CPU {}", missing.trailing_zeros());
        return Err(cause).during(STEP, format_args!("{cpus:#x}"));
    }
    set_affinity(pid, cpus.get()).during(STEP, format_args!("{cpus:#x}"))
}

/// Of the guest, whatever this process may use.
fn online_cpus() -> std::io::Result<u64> {
    let text = std::fs::read_to_string("/sys/devices/system/cpu/online")?;
    let online = CpuList::try_from(text).map_err(std::io::Error::other)?;
    Ok(online.numbers().filter(|cpu| *cpu < u64::BITS).fold(0, |bits, cpu| bits | 1 << cpu))
}

fn set_affinity(pid: u32, bits: u64) -> std::io::Result<()> {
    // SAFETY: `bits` is a set of the size given that outlives the call.
    let answer = unsafe {
        libc::syscall(libc::SYS_sched_setaffinity, libc::c_long::from(pid), size_of::<u64>(), &raw const bits)
    };
    done(answer)
}

fn set_scheduler(pid: u32, scheduler: &Scheduler) -> Result<(), ContainerError> {
    let attributes = libc::sched_attr {
        // Without the utilization clamps, which the kernel then leaves alone.
        size: 48,
        sched_policy: scheduler.policy,
        sched_flags: scheduler.flags,
        sched_nice: scheduler.nice,
        sched_priority: scheduler.priority,
        sched_runtime: scheduler.runtime_ns,
        sched_deadline: scheduler.deadline_ns,
        sched_period: scheduler.period_ns,
    };
    // SAFETY: `attributes` has the layout and size that it says (SCHED_ATTR_SIZE_VER0) and outlives the call.
    let answer = unsafe {
        libc::syscall(libc::SYS_sched_setattr, libc::c_long::from(pid), &raw const attributes, 0_u32)
    };
    done(answer).during("set scheduler", format_args!("{scheduler:?}"))
}

fn set_io_priority(pid: u32, priority: IoPriority) -> Result<(), ContainerError> {
    let value = u32::from(priority.class) << IOPRIO_CLASS_SHIFT | u32::from(priority.priority);
    // SAFETY: no pointer is passed.
    let answer = unsafe {
        libc::syscall(
            libc::SYS_ioprio_set,
            IOPRIO_WHO_PROCESS,
            libc::c_long::from(pid),
            libc::c_long::from(value),
        )
    };
    done(answer).during("set I/O priority", format_args!("{priority:?}"))
}

fn done(answer: libc::c_long) -> std::io::Result<()> {
    if answer == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
}
