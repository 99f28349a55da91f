//! Device nodes and the rules for opening devices.
//!
//! A device is what its numbers say. The guest has its own null, tty, fuse and the like under the same numbers as any
//! Linux; the host's cards it does not have, and a node with their numbers would be another device or none. A block device of
//! the host is plugged into the guest, where it has another number: the agent replaces that, in the rules as well.

use std::collections::HashSet;

use bulkhead_protocol::{
    container::{DeviceKind, DeviceNode, DeviceRule},
    slots::DISKS,
};

use super::{SpecError, process::check_absolute, raw};

/// Character devices of the guest: Documentation/admin-guide/devices.txt.
const GUEST: [(u32, u32, &str); 12] = [
    (1, 3, "null"),
    (1, 5, "zero"),
    (1, 7, "full"),
    (1, 8, "random"),
    (1, 9, "urandom"),
    (1, 11, "kmsg"),
    (5, 0, "tty"),
    (5, 2, "ptmx"),
    (10, 183, "hwrng"),
    (10, 200, "net/tun"),
    (10, 229, "fuse"),
    (10, 237, "loop-control"),
];
/// Devices of the guest that every kernel numbers as it boots: meant by this path, whatever the host's number is.
const BY_NAME: [&str; 1] = ["/dev/userfaultfd"];
/// Where a rule for all minor numbers is of use in the guest: memory, terminals, misc, and the slaves of terminals.
const MAJORS: [u32; 11] = [1, 5, 10, 136, 137, 138, 139, 140, 141, 142, 143];
/// Devices that are named of those left out.
const NAMED: usize = 8;
/// Major and minor numbers: 12 and 20 bits.
const MAJOR_MAX: u32 = 0xfff;
const MINOR_MAX: u32 = 0xf_ffff;

/// `linux.devices`, and one line that counts and names what is left out: for a privileged container engines list all that the
/// host has, and the guest has less.
pub(super) fn nodes(
    raw: &[raw::Device],
    rules: &[raw::DeviceRule],
) -> Result<(Vec<DeviceNode>, Option<String>), SpecError> {
    let privileged = allow_all(rules);
    let mut nodes = Vec::with_capacity(raw.len());
    let mut absent = Vec::new();
    let (mut paths, mut disks) = (HashSet::new(), HashSet::new());
    // A rule that is wrong is told of by `rules`.
    let rules: Vec<_> = rules.iter().enumerate().filter_map(|(index, raw)| rule(raw, index).ok()).collect();
    for (index, device) in raw.iter().enumerate() {
        check_absolute(&device.path, || format!("linux.devices[{index}].path"))?;
        if !paths.insert(device.path.as_str()) {
            let field = format!("linux.devices[{index}]");
            return Err(SpecError::Invalid { field, reason: format!("{} is given twice", device.path) });
        }
        match node(device, index, &rules) {
            // A privileged container gets no disk either: all of the host's are named, whether it is to use them or not.
            Err(SpecError::Refused { .. }) | Ok(DeviceNode { kind: DeviceKind::Block, .. }) if privileged => {
                absent.push(device.path.as_str());
            }
            node => nodes.push(node?),
        }
        if let Some(DeviceNode { kind: DeviceKind::Block, major, minor, .. }) = nodes.last() {
            disks.insert((*major, *minor));
        }
        if disks.len() > usize::from(DISKS) {
            let field = format!("linux.devices[{index}]");
            return Err(SpecError::Refused { field, reason: format!("a pod has {DISKS} disks at most") });
        }
    }
    Ok((nodes, (!absent.is_empty()).then(|| left_out(&absent))))
}

/// Whether every device may be opened and made: the last rule for all of them counts.
fn allow_all(rules: &[raw::DeviceRule]) -> bool {
    let mut parsed = rules.iter().enumerate().filter_map(|(index, raw)| rule(raw, index).ok());
    let last = parsed.rfind(|rule| (rule.kind, rule.major, rule.minor) == (None, None, None));
    last.is_some_and(|rule| rule.allow && rule.read && rule.write && rule.mknod)
}

fn left_out(absent: &[&str]) -> String {
    let named = absent.iter().take(NAMED).copied().collect::<Vec<_>>().join(", ");
    let more = if absent.len() > NAMED { ", …" } else { "" };
    format!("linux.devices: {} devices of the host are not in the microVM: {named}{more}", absent.len())
}

fn node(device: &raw::Device, index: usize, rules: &[DeviceRule]) -> Result<DeviceNode, SpecError> {
    let refused = |reason| SpecError::Refused { field: format!("linux.devices[{index}]"), reason };
    let number = |value: Option<i64>, name: &str, most: u32| {
        let field = || format!("linux.devices[{index}].{name}");
        let value = value.ok_or_else(|| SpecError::Missing { field: field() })?;
        let in_range = u32::try_from(value).ok().filter(|number| *number <= most);
        in_range
            .ok_or_else(|| SpecError::Invalid { field: field(), reason: format!("{value} is out of range") })
    };
    let (kind, major, minor) = match device.kind.as_str() {
        "p" => (DeviceKind::Fifo, 0, 0),
        "c" | "u" => {
            let major = number(device.major, "major", MAJOR_MAX)?;
            (DeviceKind::Char, major, number(device.minor, "minor", MINOR_MAX)?)
        }
        "b" => {
            let major = number(device.major, "major", MAJOR_MAX)?;
            let minor = number(device.minor, "minor", MINOR_MAX)?;
            let may = |decides: fn(&DeviceRule) -> bool| allowed(rules, major, minor, decides);
            if !may(|rule| rule.read) && !may(|rule| rule.write) {
                return Err(refused(format!(
                    "no rule of linux.resources.devices lets the container read or write {} (b {major}:{minor})",
                    device.path
                )));
            }
            (DeviceKind::Block, major, minor)
        }
        other => {
            let reason = format!("{other:?} is not one of c, u, b, p");
            return Err(SpecError::Invalid { field: format!("linux.devices[{index}].type"), reason });
        }
    };
    let by_name = kind == DeviceKind::Char && BY_NAME.contains(&device.path.as_str());
    if kind == DeviceKind::Char && !by_name && !in_guest(major, minor) {
        let known = GUEST.map(|(_, _, name)| name).join(", ");
        let named = BY_NAME.join(", ");
        return Err(refused(format!(
            "{} (c {major}:{minor}) is not in the microVM, which has {known}, and {named}",
            device.path
        )));
    }
    Ok(DeviceNode {
        path: device.path.clone(),
        kind,
        major,
        minor,
        by_name,
        disk: None,
        // Callers copy st_mode, type bits and all.
        mode: device.file_mode.unwrap_or(0o666) & 0o7777,
        uid: device.uid.unwrap_or(0),
        gid: device.gid.unwrap_or(0),
    })
}

/// Whether a container may write to a block device of the host: its disk is read-only in the guest otherwise.
pub(crate) fn may_write(rules: &[DeviceRule], node: &DeviceNode) -> bool {
    allowed(rules, node.major, node.minor, |rule| rule.write)
}

/// Whether the last rule for a block device that decides about some access allows it.
fn allowed(rules: &[DeviceRule], major: u32, minor: u32, decides: impl Fn(&DeviceRule) -> bool) -> bool {
    let names = |rule: &&DeviceRule| {
        rule.kind.is_none_or(|kind| kind == DeviceKind::Block)
            && rule.major.is_none_or(|number| number == major)
            && rule.minor.is_none_or(|number| number == minor)
    };
    rules.iter().filter(names).rfind(|rule| decides(rule)).is_some_and(|rule| rule.allow)
}

fn in_guest(major: u32, minor: u32) -> bool {
    GUEST.iter().any(|known| (known.0, known.1) == (major, minor))
}

/// `linux.resources.devices`, in order. What every container may use is added behind them in the guest.
///
/// A rule that allows a device of the host is left out with a warning: its number may be another device's here. Of block devices
/// that is so for a rule that forbids them too. A rule for all of a driver's is one for each disk of the container.
pub(super) fn rules(
    raw: &[raw::DeviceRule],
    nodes: &[DeviceNode],
    warnings: &mut Vec<String>,
) -> Result<Vec<DeviceRule>, SpecError> {
    let mut rules = Vec::with_capacity(raw.len());
    for (index, raw) in raw.iter().enumerate() {
        let rule = rule(raw, index)?;
        if let (Some(DeviceKind::Block), Some(major)) = (rule.kind, rule.major) {
            let named = nodes.iter().filter(|node| {
                node.kind == DeviceKind::Block
                    && node.major == major
                    && rule.minor.is_none_or(|minor| minor == node.minor)
            });
            let before = rules.len();
            rules.extend(named.map(|node| DeviceRule { minor: Some(node.minor), ..rule.clone() }));
            if rules.len() > before || !rule.allow {
                continue;
            }
        } else if !rule.allow || names_guest_device(&rule, nodes) {
            rules.push(rule);
            continue;
        }
        warnings.push(format!("linux.resources.devices[{index}]: no such device is in the microVM"));
    }
    Ok(rules)
}

fn names_guest_device(rule: &DeviceRule, nodes: &[DeviceNode]) -> bool {
    let own = |node: &DeviceNode| node.by_name || node.kind == DeviceKind::Block && rule.kind.is_none();
    let by_name =
        |major, minor| nodes.iter().any(|node| own(node) && (node.major, node.minor) == (major, minor));
    match (rule.kind, rule.major, rule.minor) {
        (_, None, _) => true,
        // What is for block devices alone does not come here.
        (Some(DeviceKind::Block | DeviceKind::Fifo), Some(_), _) => false,
        (Some(DeviceKind::Char) | None, Some(major), None) => MAJORS.contains(&major),
        (Some(DeviceKind::Char) | None, Some(major), Some(minor)) => {
            let terminal = (major, minor) == (5, 1) || (136..=143).contains(&major);
            terminal || in_guest(major, minor) || by_name(major, minor)
        }
    }
}

fn rule(raw: &raw::DeviceRule, index: usize) -> Result<DeviceRule, SpecError> {
    let invalid = |name: &str, reason| {
        Err(SpecError::Invalid { field: format!("linux.resources.devices[{index}].{name}"), reason })
    };
    let kind = match raw.kind.as_deref().unwrap_or("a") {
        "a" | "" => None,
        "c" | "u" => Some(DeviceKind::Char),
        "b" => Some(DeviceKind::Block),
        other => return invalid("type", format!("{other:?} is not one of a, c, b")),
    };
    let number = |value: Option<i64>, name: &str, most| match value {
        // -1 is how callers write "any".
        None | Some(-1) => Ok(None),
        Some(value) => match u32::try_from(value).ok().filter(|number| *number <= most) {
            Some(value) => Ok(Some(value)),
            None => invalid(name, format!("{value} is out of range")).map(|_: DeviceRule| None),
        },
    };
    let access = raw.access.as_deref().filter(|access| !access.is_empty()).unwrap_or("rwm");
    if let Some(bad) = access.chars().find(|letter| !"rwm".contains(*letter)) {
        return invalid("access", format!("{bad:?} is not one of r, w, m"));
    }
    Ok(DeviceRule {
        allow: raw.allow,
        kind,
        major: number(raw.major, "major", MAJOR_MAX)?,
        minor: number(raw.minor, "minor", MINOR_MAX)?,
        read: access.contains('r'),
        write: access.contains('w'),
        mknod: access.contains('m'),
    })
}

#[cfg(test)]
mod tests;
