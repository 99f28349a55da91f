//! `linux.memoryPolicy`: set_mempolicy(2) for the guest's one memory node.

use bulkhead_protocol::container::MemoryPolicy;

use super::{SpecError, raw, scheduling::set_of};

/// linux/mempolicy.h, and whether a mode needs nodes, may have them, or must not.
pub(crate) const MODES: [(&str, u32, Nodes); 7] = [
    ("MPOL_BIND", 2, Nodes::Needed),
    ("MPOL_DEFAULT", 0, Nodes::Refused),
    ("MPOL_INTERLEAVE", 3, Nodes::Needed),
    ("MPOL_LOCAL", 4, Nodes::Refused),
    ("MPOL_PREFERRED", 1, Nodes::Optional),
    ("MPOL_PREFERRED_MANY", 5, Nodes::Needed),
    ("MPOL_WEIGHTED_INTERLEAVE", 6, Nodes::Needed),
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Nodes {
    Needed,
    Optional,
    Refused,
}

pub(crate) const FLAGS: [(&str, u32); 3] = [
    ("MPOL_F_NUMA_BALANCING", 1 << 13),
    ("MPOL_F_RELATIVE_NODES", RELATIVE),
    ("MPOL_F_STATIC_NODES", STATIC),
];
const RELATIVE: u32 = 1 << 14;
const STATIC: u32 = 1 << 15;

/// The last memory node of a guest.
const LAST_NODE: u32 = 0;

pub(super) fn parse(raw: Option<&raw::MemoryPolicy>) -> Result<Option<MemoryPolicy>, SpecError> {
    let Some(raw) = raw else { return Ok(None) };
    let invalid = |name: &str, reason: String| SpecError::Invalid {
        field: format!("linux.memoryPolicy.{name}"),
        reason,
    };
    if raw.mode.is_empty() {
        return Err(SpecError::Missing { field: "linux.memoryPolicy.mode".into() });
    }
    let Some((name, number, wanted)) = MODES.iter().find(|(name, ..)| *name == raw.mode) else {
        let known: Vec<&str> = MODES.iter().map(|(name, ..)| *name).collect();
        return Err(invalid("mode", format!("{:?} is not one of {}", raw.mode, known.join(", "))));
    };
    let nodes = set_of(&raw.nodes, LAST_NODE).map_err(|reason| invalid("nodes", reason))?;
    match (wanted, nodes) {
        (Nodes::Needed, None) => return Err(invalid("nodes", format!("{name} needs nodes"))),
        (Nodes::Refused, Some(_)) => return Err(invalid("nodes", format!("{name} takes no nodes"))),
        _ => {}
    }
    let mut mode = *number;
    for (index, flag) in raw.flags.iter().enumerate() {
        let bit = FLAGS.iter().find(|(known, _)| known == flag);
        let (_, bit) =
            bit.ok_or_else(|| invalid(&format!("flags[{index}]"), format!("{flag:?} is not a flag")))?;
        mode |= bit;
    }
    if mode & (RELATIVE | STATIC) == RELATIVE | STATIC {
        return Err(invalid("flags", "nodes cannot be static and relative".into()));
    }
    Ok(Some(MemoryPolicy { mode, nodes: nodes.map_or(0, Into::into) }))
}

#[cfg(test)]
mod tests;
