//! `linux.sysctl`: those that belong to a namespace of the container's own. Any other changes the whole guest, and so
//! the other containers of the pod: that takes the operator's word.

use std::collections::BTreeMap;

use bulkhead_protocol::container::NamespaceKind;

use super::{AllowedSysctls, SpecError, namespaces::Namespaces, process::refuse_nul};

/// ipc_namespaces(7).
const IPC: [&str; 8] = [
    "kernel.msgmax",
    "kernel.msgmnb",
    "kernel.msgmni",
    "kernel.sem",
    "kernel.shm_rmid_forced",
    "kernel.shmall",
    "kernel.shmmax",
    "kernel.shmmni",
];

/// Settings with their names in dots.
#[derive(Debug, Default)]
pub(super) struct Settings {
    /// Of the container's namespaces.
    pub(super) own: BTreeMap<String, String>,
    /// Of the whole guest.
    pub(super) guest: BTreeMap<String, String>,
}

pub(super) fn parse(
    raw: &BTreeMap<String, String>,
    namespaces: &Namespaces,
    allowed: &AllowedSysctls,
) -> Result<Settings, SpecError> {
    let mut settings = Settings::default();
    for (key, value) in raw {
        let field = || format!("linux.sysctl[{key:?}]");
        let invalid = |reason: &str| SpecError::Invalid { field: field(), reason: reason.to_owned() };
        let name = dotted(key);
        // The guest makes a path below /proc/sys of it.
        let path = name.replace(['.', '/'], "\n");
        if path.split('\n').any(str::is_empty) || name.contains(['\0', '\n']) {
            return Err(invalid("is not the name of a setting"));
        }
        if name == "kernel.hostname" {
            return Err(invalid("use `hostname` instead"));
        }
        let list = match owner(&name) {
            Some(kind) if namespaces.has(kind) => &mut settings.own,
            Some(_) => {
                return Err(invalid("the container has no namespace of its own that the setting belongs to"));
            }
            None if allowed.allow(&name) => &mut settings.guest,
            None => {
                let reason =
                    "the setting belongs to no namespace and would change the whole guest".to_owned();
                return Err(SpecError::Refused { field: field(), reason });
            }
        };
        refuse_nul(value, field)?;
        if list.insert(name, value.clone()).is_some() {
            return Err(invalid("is given twice, with dots and with slashes"));
        }
    }
    Ok(settings)
}

/// sysctl(8) takes both: when the first separator is a slash, slashes and dots have changed places.
fn dotted(key: &str) -> String {
    match key.find(['.', '/']).map(|at| key.as_bytes()[at]) {
        Some(b'/') => key
            .chars()
            .map(|letter| match letter {
                '/' => '.',
                '.' => '/',
                other => other,
            })
            .collect(),
        _ => key.to_owned(),
    }
}

fn owner(name: &str) -> Option<NamespaceKind> {
    if IPC.contains(&name) || name.starts_with("fs.mqueue.") {
        Some(NamespaceKind::Ipc)
    } else if name.starts_with("net.") {
        Some(NamespaceKind::Network)
    } else if matches!(name, "kernel.domainname" | "kernel.hostname") {
        Some(NamespaceKind::Uts)
    } else {
        None
    }
}

#[cfg(test)]
mod tests;
