//! `process.scheduler`, `process.ioPriority` and `process.execCPUAffinity`: names to the kernel's numbers, and what the
//! kernel would take without honouring it is refused. CPUs are the guest's, counted from 0.

use bulkhead_protocol::{
    container::{Cpus, ExecCpus, IoPriority, Scheduler, Scheduling},
    limits,
};

use super::{SpecError, raw};

/// linux/sched.h. SCHED_ISO has a number there, but no code.
const POLICIES: [(&str, u32); 6] = [
    ("SCHED_OTHER", 0),
    ("SCHED_FIFO", FIFO),
    ("SCHED_RR", RR),
    ("SCHED_BATCH", 3),
    ("SCHED_IDLE", 5),
    ("SCHED_DEADLINE", DEADLINE),
];
const FIFO: u32 = 1;
const RR: u32 = 2;
const DEADLINE: u32 = 6;

/// linux/sched.h. Those without a bit need a value that the specification has no field for.
const FLAGS: [(&str, Option<u64>); 7] = [
    ("SCHED_FLAG_RESET_ON_FORK", Some(0x01)),
    ("SCHED_FLAG_RECLAIM", Some(0x02)),
    ("SCHED_FLAG_DL_OVERRUN", Some(0x04)),
    ("SCHED_FLAG_KEEP_POLICY", Some(0x08)),
    ("SCHED_FLAG_KEEP_PARAMS", Some(0x10)),
    ("SCHED_FLAG_UTIL_CLAMP_MIN", None),
    ("SCHED_FLAG_UTIL_CLAMP_MAX", None),
];

/// sched(7): of SCHED_FIFO and SCHED_RR.
const PRIORITIES: std::ops::RangeInclusive<u32> = 1..=99;
/// linux/ioprio.h: classes, and the levels in each.
const IO_CLASSES: [(&str, u16); 3] =
    [("IOPRIO_CLASS_RT", 1), ("IOPRIO_CLASS_BE", 2), ("IOPRIO_CLASS_IDLE", 3)];
const IO_PRIORITIES: std::ops::RangeInclusive<i64> = 0..=7;

pub(super) fn parse(raw: &raw::Process) -> Result<Scheduling, SpecError> {
    Ok(Scheduling {
        scheduler: raw.scheduler.as_ref().map(scheduler).transpose()?,
        io_priority: raw.io_priority.as_ref().map(io_priority).transpose()?,
        exec_cpus: raw.exec_cpu_affinity.as_ref().map(exec_cpus).transpose()?.flatten(),
    })
}

fn scheduler(raw: &raw::Scheduler) -> Result<Scheduler, SpecError> {
    let invalid = |name: &str, reason: String| invalid(format!("process.scheduler.{name}"), reason);
    if raw.policy.is_empty() {
        return Err(SpecError::Missing { field: "process.scheduler.policy".into() });
    }
    if raw.policy == "SCHED_ISO" {
        let reason = "Linux reserves the name and has no such policy".to_owned();
        return Err(SpecError::Refused { field: "process.scheduler.policy \"SCHED_ISO\"".into(), reason });
    }
    let policy = number(&POLICIES, &raw.policy).map_err(|reason| invalid("policy", reason))?;
    if !(-20..=19).contains(&raw.nice) {
        return Err(invalid("nice", format!("{} is not between -20 and 19", raw.nice)));
    }
    let realtime = matches!(policy, FIFO | RR);
    let priority = u32::try_from(raw.priority).unwrap_or(u32::MAX);
    if realtime && !PRIORITIES.contains(&priority) {
        return Err(invalid("priority", format!("{} is not between 1 and 99", raw.priority)));
    }
    if !realtime && raw.priority != 0 {
        return Err(invalid("priority", "only SCHED_FIFO and SCHED_RR take a priority".into()));
    }
    let times = [("runtime", raw.runtime), ("deadline", raw.deadline), ("period", raw.period)];
    if let Some((name, _)) = times.iter().find(|(_, value)| policy != DEADLINE && *value != 0) {
        return Err(invalid(name, "only SCHED_DEADLINE takes this field".into()));
    }
    Ok(Scheduler {
        policy,
        flags: scheduler_flags(&raw.flags)?,
        nice: raw.nice,
        priority,
        runtime_ns: raw.runtime,
        deadline_ns: raw.deadline,
        period_ns: raw.period,
    })
}

fn scheduler_flags(raw: &[String]) -> Result<u64, SpecError> {
    let mut bits = 0;
    for (index, name) in raw.iter().enumerate() {
        let field = format!("process.scheduler.flags[{index}]");
        match FLAGS.iter().find(|(known, _)| known == name) {
            Some((_, Some(bit))) => bits |= bit,
            Some((_, None)) => {
                let reason = "the specification has no field for the value that it clamps to".to_owned();
                return Err(SpecError::Refused { field: format!("{field} {name:?}"), reason });
            }
            None => return Err(invalid(field, format!("{name:?} is not a flag"))),
        }
    }
    Ok(bits)
}

fn io_priority(raw: &raw::IoPriority) -> Result<IoPriority, SpecError> {
    if raw.class.is_empty() {
        return Err(SpecError::Missing { field: "process.ioPriority.class".into() });
    }
    let class = number(&IO_CLASSES, &raw.class)
        .map_err(|reason| invalid("process.ioPriority.class".into(), reason))?;
    match u16::try_from(raw.priority) {
        Ok(priority) if IO_PRIORITIES.contains(&raw.priority) => Ok(IoPriority { class, priority }),
        _ => {
            let reason = format!("{} is not between 0 and 7", raw.priority);
            Err(invalid("process.ioPriority.priority".into(), reason))
        }
    }
}

fn exec_cpus(raw: &raw::CpuAffinity) -> Result<Option<ExecCpus>, SpecError> {
    let cpus = |name: &str, list: &str| {
        let most = u32::from(limits::VCPUS) - 1;
        set_of(list, most).map_err(|reason| invalid(format!("process.execCPUAffinity.{name}"), reason))
    };
    let (initial, last) = (cpus("initial", &raw.initial)?, cpus("final", &raw.last)?);
    Ok((initial.is_some() || last.is_some()).then_some(ExecCpus { initial, last }))
}

/// `0-3,7` as bits, each at most `most`, which is below 64; `None` for an empty list.
pub(super) fn set_of(list: &str, most: u32) -> Result<Option<Cpus>, String> {
    if list.is_empty() {
        return Ok(None);
    }
    let mut bits = 0_u64;
    for range in list.split(',') {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let number = |text: &str| {
            text.trim().parse::<u32>().map_err(|_| format!("{list:?} is not a list such as 0-3,7"))
        };
        let (first, last) = (number(first)?, number(last)?);
        if first > last {
            return Err(format!("the range {range:?} goes backwards"));
        }
        if last > most {
            return Err(format!("{last} is beyond {most}, the last that a guest can have"));
        }
        (first..=last).for_each(|number| bits |= 1 << number);
    }
    Ok(Cpus::new(bits))
}

fn number<T: Copy>(table: &[(&str, T)], name: &str) -> Result<T, String> {
    table.iter().find(|(known, _)| *known == name).map(|(_, number)| *number).ok_or_else(|| {
        let known: Vec<&str> = table.iter().map(|(known, _)| *known).collect();
        format!("{name:?} is not one of {}", known.join(", "))
    })
}

fn invalid(field: String, reason: String) -> SpecError {
    SpecError::Invalid { field, reason }
}

#[cfg(test)]
mod tests;
