//! Names and numbers of asm-generic/resource.h.

use bulkhead_protocol::container::Rlimit;

use super::{SpecError, raw};

/// In the order of their numbers, without `RLIMIT_`.
const NAMES: [&str; 16] = [
    "CPU",
    "FSIZE",
    "DATA",
    "STACK",
    "CORE",
    "RSS",
    "NPROC",
    "NOFILE",
    "MEMLOCK",
    "AS",
    "LOCKS",
    "SIGPENDING",
    "MSGQUEUE",
    "NICE",
    "RTPRIO",
    "RTTIME",
];

fn number(name: &str) -> Option<u32> {
    let plain = name.strip_prefix("RLIMIT_")?;
    NAMES.iter().position(|known| *known == plain).and_then(|number| u32::try_from(number).ok())
}

pub(super) fn parse(raw: &[raw::Rlimit]) -> Result<Vec<Rlimit>, SpecError> {
    let mut limits: Vec<Rlimit> = Vec::with_capacity(raw.len().min(NAMES.len()));
    for (index, limit) in raw.iter().enumerate() {
        let invalid = |reason| SpecError::Invalid { field: format!("process.rlimits[{index}]"), reason };
        let kind = &limit.kind;
        let resource = number(kind).ok_or_else(|| invalid(format!("{kind:?} is not a resource limit")))?;
        if limits.iter().any(|earlier| earlier.resource == resource) {
            return Err(invalid(format!("{kind} is given twice")));
        }
        if limit.soft > limit.hard {
            return Err(invalid(format!("soft {} is above hard {}", limit.soft, limit.hard)));
        }
        limits.push(Rlimit { resource, soft: limit.soft, hard: limit.hard });
    }
    Ok(limits)
}

#[cfg(test)]
mod tests;
