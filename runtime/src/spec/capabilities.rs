//! Names and numbers of linux/capability.h, and the five sets of a spec as bit masks.
//!
//! A name that we do not know is a warning and not an error: the spec's rule since 1.1, so that a bundle written
//! for a newer kernel still runs.

use bulkhead_protocol::container::Capabilities;

use super::{SpecError, raw};

/// In the order of their numbers, without `CAP_`.
const NAMES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// All names, as a spec writes them.
pub(crate) fn names() -> impl Iterator<Item = String> {
    NAMES.iter().map(|name| format!("CAP_{name}"))
}

/// The bit of `CAP_NAME`; the prefix may be missing and the case is free, as on runc's command line.
pub(super) fn bit(name: &str) -> Option<u64> {
    let upper = name.to_ascii_uppercase();
    let plain = upper.strip_prefix("CAP_").unwrap_or(&upper);
    NAMES.iter().position(|known| *known == plain).map(|number| 1 << number)
}

/// Refuses sets that contradict each other (capabilities(7)): the kernel would, when the process is made.
pub(super) fn parse(raw: &raw::Capabilities, warnings: &mut Vec<String>) -> Result<Capabilities, SpecError> {
    let sets = known(raw, warnings);
    within("effective", sets.effective, "permitted", sets.permitted)?;
    within("inheritable", sets.inheritable, "bounding", sets.bounding)?;
    Ok(sets)
}

fn within(set: &str, bits: u64, outer_set: &str, outer_bits: u64) -> Result<(), SpecError> {
    let beyond = bits & !outer_bits;
    let Some(name) =
        NAMES.iter().enumerate().find_map(|(bit, name)| (beyond >> bit & 1 == 1).then_some(name))
    else {
        return Ok(());
    };
    let field = format!("process.capabilities.{set}");
    Err(SpecError::Invalid { field, reason: format!("CAP_{name} is not in {outer_set}") })
}

fn known(raw: &raw::Capabilities, warnings: &mut Vec<String>) -> Capabilities {
    let mut set = |names: &[String], kind: &str| {
        let mut bits = 0;
        for name in names {
            match bit(name) {
                Some(bit) => bits |= bit,
                None => warnings
                    .push(format!("process.capabilities.{kind}: {name:?} is not known and is left out")),
            }
        }
        bits
    };
    Capabilities {
        bounding: set(&raw.bounding, "bounding"),
        effective: set(&raw.effective, "effective"),
        inheritable: set(&raw.inheritable, "inheritable"),
        permitted: set(&raw.permitted, "permitted"),
        ambient: set(&raw.ambient, "ambient"),
    }
}

#[cfg(test)]
mod tests;
