//! The namespaces of a container, all of them in the guest.
//!
//! A network namespace may have the path of a network namespace of the host: the guest's namespace gets the same
//! interfaces then. A path below /proc/PID/ns may name the namespace of another container, by the pid of its proxy. Paths
//! are checked as text here: the command opens them.
//!
//! A missing kind means the runtime's own namespace in the spec, which here is the sandbox's. That is harmless for pid,
//! ipc, uts and cgroup. It is refused for mount, where the container would change the agent's root, and for network: a
//! bundle without a network namespace asks for the host's network, which a microVM cannot give.

use std::collections::BTreeMap;

use bulkhead_protocol::container::{
    IdMapping, Namespace, NamespaceKind, NamespacePlace, TimeOffset, TimeOffsets,
};

use super::{Join, NetworkPath, SpecError, raw};

/// Lines that the kernel takes in uid_map (UID_GID_MAP_MAX_EXTENTS).
const MAPPINGS_MAX: usize = 340;

const NAMES: [(&str, NamespaceKind); 8] = [
    ("cgroup", NamespaceKind::Cgroup),
    ("ipc", NamespaceKind::Ipc),
    ("mount", NamespaceKind::Mount),
    ("network", NamespaceKind::Network),
    ("pid", NamespaceKind::Pid),
    ("time", NamespaceKind::Time),
    ("user", NamespaceKind::User),
    ("uts", NamespaceKind::Uts),
];

/// The kinds that can be asked for.
pub(crate) fn names() -> impl Iterator<Item = &'static str> {
    NAMES.iter().map(|(name, _)| *name)
}

/// The checked list, which answers what a container has.
#[derive(Debug, Default)]
pub(super) struct Namespaces(pub(super) Vec<Namespace>);

impl Namespaces {
    pub(super) fn has(&self, kind: NamespaceKind) -> bool {
        self.0.iter().any(|namespace| namespace.kind == kind)
    }
}

pub(super) fn parse(raw: &[raw::Namespace]) -> Result<Namespaces, SpecError> {
    let mut list = Namespaces::default();
    for (index, namespace) in raw.iter().enumerate() {
        let field = format!("linux.namespaces[{index}]");
        let name = namespace.kind.as_str();
        let Some((_, kind)) = NAMES.iter().find(|(known, _)| *known == name) else {
            let known = names().collect::<Vec<_>>().join(", ");
            let reason = format!("{name:?} is not one of {known}");
            return Err(SpecError::Invalid { field: format!("{field}.type"), reason });
        };
        if list.has(*kind) {
            return Err(SpecError::Invalid { field, reason: format!("{name} is given twice") });
        }
        list.0.push(Namespace { kind: *kind, place: NamespacePlace::New });
    }
    if !list.has(NamespaceKind::Network) {
        let reason = "without a namespace of type network the container would use the host's".to_owned();
        return Err(SpecError::Refused { field: "linux.namespaces".into(), reason });
    }
    if !list.has(NamespaceKind::Mount) {
        let reason = "a namespace of type mount is required".to_owned();
        return Err(SpecError::Invalid { field: "linux.namespaces".into(), reason });
    }
    Ok(list)
}

/// The namespaces that the container may share with another container.
pub(super) fn joins(raw: &[raw::Namespace]) -> Result<Vec<Join>, SpecError> {
    let mut joins = Vec::new();
    for (index, namespace) in raw.iter().enumerate() {
        let Some(path) = namespace.path.as_deref().filter(|path| !path.is_empty()) else { continue };
        let field = format!("linux.namespaces[{index}].path");
        let joinable = JOINABLE.iter().find(|(name, ..)| *name == namespace.kind);
        let Some((_, file, kind)) = joinable else {
            let reason =
                "only namespaces of type ipc, network, pid and uts can be those of another container";
            return Err(SpecError::Refused { field, reason: reason.into() });
        };
        match process(path, file) {
            Some(pid) => joins.push(Join { field, kind: *kind, pid }),
            None if *kind == NamespaceKind::Network => {}
            None => {
                let reason = format!("{path} is not /proc/PID/ns/{file} of a container's process");
                return Err(SpecError::Refused { field, reason });
            }
        }
    }
    Ok(joins)
}

/// Types that a container can share, and their names in /proc/PID/ns.
const JOINABLE: [(&str, &str, NamespaceKind); 4] = [
    ("ipc", "ipc", NamespaceKind::Ipc),
    ("network", "net", NamespaceKind::Network),
    ("pid", "pid", NamespaceKind::Pid),
    ("uts", "uts", NamespaceKind::Uts),
];

/// `/proc/PID/ns/FILE`
fn process(path: &str, file: &str) -> Option<u32> {
    let (pid, rest) = path.strip_prefix("/proc/")?.split_once('/')?;
    if rest.strip_prefix("ns/")? != file || !pid.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    pid.parse().ok()
}

/// The network namespace of the host that is given by its path. Whether the path leads to one is known when it is opened.
pub(super) fn network(raw: &[raw::Namespace]) -> Result<Option<NetworkPath>, SpecError> {
    let network = raw.iter().enumerate().find(|(_, namespace)| namespace.kind == "network");
    let Some((index, namespace)) = network else { return Ok(None) };
    let Some(path) = namespace.path.as_deref().filter(|path| !path.is_empty()) else { return Ok(None) };
    let field = format!("linux.namespaces[{index}].path");
    super::process::check_absolute(path, || field.clone())?;
    Ok(Some(NetworkPath { field, path: path.into() }))
}

/// `linux.uidMappings` or `linux.gidMappings`, called `name`.
pub(super) fn mappings(
    raw: &[raw::IdMapping],
    name: &str,
    namespaces: &Namespaces,
) -> Result<Vec<IdMapping>, SpecError> {
    let invalid = |field: String, reason: &str| SpecError::Invalid { field, reason: reason.to_owned() };
    match (raw.is_empty(), namespaces.has(NamespaceKind::User)) {
        (false, false) => {
            return Err(invalid(format!("linux.{name}"), "there is no user namespace to map into"));
        }
        (true, true) => {
            return Err(invalid(format!("linux.{name}"), "a user namespace needs at least one mapping"));
        }
        _ => {}
    }
    // The container is set up by its own root.
    if !raw.is_empty() && raw.iter().all(|mapping| mapping.container != 0) {
        return Err(invalid(format!("linux.{name}"), "no mapping begins at id 0 of the container"));
    }
    checked(raw, &format!("linux.{name}"))
}

/// The mappings of the field `name`, as the kernel takes them.
pub(super) fn checked(raw: &[raw::IdMapping], name: &str) -> Result<Vec<IdMapping>, SpecError> {
    let invalid = |field: String, reason: &str| SpecError::Invalid { field, reason: reason.to_owned() };
    if raw.len() > MAPPINGS_MAX {
        return Err(invalid(name.to_owned(), "the kernel takes at most 340 mappings"));
    }
    let check = |(index, mapping): (usize, &raw::IdMapping)| {
        let field = || format!("{name}[{index}]");
        if mapping.size == 0 {
            return Err(invalid(field(), "size is 0"));
        }
        // 4294967295 is "no id" in every system call that takes one.
        let fits = |first: u32| u64::from(first) + u64::from(mapping.size) <= u64::from(u32::MAX);
        if !fits(mapping.container) || !fits(mapping.host) {
            return Err(invalid(field(), "goes beyond the last id, 4294967294"));
        }
        Ok(IdMapping { container: mapping.container, host: mapping.host, size: mapping.size })
    };
    raw.iter().enumerate().map(check).collect()
}

/// `linux.timeOffsets`.
pub(super) fn time_offsets(
    raw: &BTreeMap<String, raw::TimeOffset>,
    namespaces: &Namespaces,
) -> Result<TimeOffsets, SpecError> {
    const SECOND: u32 = 1_000_000_000;
    let mut offsets = TimeOffsets::default();
    for (clock, offset) in raw {
        let invalid = |field: String, reason: String| SpecError::Invalid { field, reason };
        let place = match clock.as_str() {
            "monotonic" => &mut offsets.monotonic,
            "boottime" => &mut offsets.boottime,
            other => {
                let reason = format!("{other:?} is not one of boottime, monotonic");
                return Err(invalid("linux.timeOffsets".into(), reason));
            }
        };
        if !namespaces.has(NamespaceKind::Time) {
            let reason = "there is no namespace of type time to set them in".to_owned();
            return Err(invalid("linux.timeOffsets".into(), reason));
        }
        if offset.nanosecs >= SECOND {
            let reason = format!("{} is a second or more", offset.nanosecs);
            return Err(invalid(format!("linux.timeOffsets.{clock}.nanosecs"), reason));
        }
        *place = Some(TimeOffset { seconds: offset.secs, nanoseconds: offset.nanosecs });
    }
    Ok(offsets)
}

#[cfg(test)]
mod tests;
