//! Which microVM a container goes to: one of its own, or that of the container whose namespaces it shares.
//!
//!   linux.namespaces[].path = /proc/PID/ns/… ─▶ the container for which PID stands ─▶ its sandbox

use std::path::Path;

use bulkhead_protocol::{
    container::{NamespaceKind, NamespacePlace},
    id::ContainerId,
};

use crate::{
    error::Error,
    spec::{Bundle, Join, NetworkPath, SpecError},
    store::{Process, Record, StateDir},
};

/// A sandbox that has a container already.
#[derive(Debug)]
pub(super) struct Joined {
    /// The container that it was made for.
    pub(super) sandbox: ContainerId,
    pub(super) server: Process,
}

/// Finds the sandbox, and has the guest share the namespaces. `None`: no namespace is that of a container.
pub(super) fn resolve(root: &Path, bundle: &mut Bundle) -> Result<Option<Joined>, Error> {
    if bundle.host.joins.is_empty() {
        return Ok(None);
    }
    let records = StateDir::records(root)?.into_iter().collect::<Result<Vec<_>, _>>()?;
    let mut owner: Option<&Record> = None;
    let mut kinds = Vec::new();
    for join in &bundle.host.joins {
        let found = records.iter().find(|record| record.proxy.pid == join.pid && record.proxy.is_alive());
        match (found, owner) {
            // A network namespace of the host, like any other.
            (None, _) if join.kind == NamespaceKind::Network => continue,
            (None, _) => {
                return refused(join, format!("process {} stands for no container of ours", join.pid));
            }
            (Some(found), Some(owner)) if found.id != owner.id => {
                return refused(join, format!("it is of {}, and another one is of {}", found.id, owner.id));
            }
            (Some(found), _) => owner = Some(found),
        }
        kinds.push(join.kind);
    }
    let Some(owner) = owner else { return Ok(None) };
    let network = bundle.host.network.as_ref().filter(|_| !kinds.contains(&NamespaceKind::Network));
    if let Some(NetworkPath { path, .. }) = network {
        let reason = format!(
            "in the microVM of {} a container has that one's network or none, not {}",
            owner.id,
            path.display()
        );
        return Err(SpecError::Refused { field: "linux.namespaces".into(), reason }.into());
    }
    let target = owner.id.parse::<ContainerId>()?;
    let sandbox = owner.sandbox.clone().unwrap_or_else(|| target.clone());
    for namespace in &mut bundle.guest.namespaces {
        if kinds.contains(&namespace.kind) {
            namespace.place = NamespacePlace::Joined;
        }
    }
    bundle.guest.join = Some(target);
    Ok(Some(Joined { sandbox, server: owner.server }))
}

fn refused<T>(join: &Join, reason: String) -> Result<T, Error> {
    Err(SpecError::Refused { field: join.field.clone(), reason }.into())
}

#[cfg(test)]
mod tests;
