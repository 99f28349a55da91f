//! Which microVM a container goes to: one of its own, or that of the container whose namespaces it shares.
//!
//!   linux.namespaces[].path = /proc/PID/ns/… ─▶ the container for which PID stands ─▶ its sandbox

use std::path::Path;

use bulkhead_protocol::container::{NamespaceKind, NamespacePlace};

use crate::{
    error::Error,
    spec::{Bundle, Join, NetworkPath, SpecError},
    store::{Record, SandboxDir, StateDir},
};

/// A sandbox that has a container already.
#[derive(Debug)]
pub(super) struct Joined {
    pub(super) sandbox: SandboxDir,
    /// People know its microVM by the container in whose cgroup it is.
    pub(super) host: String,
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
        let is_it = |record: &&Record| record.proxy.is_some_and(|p| p.pid == join.pid && p.is_alive());
        match (records.iter().find(is_it), owner) {
            // A network namespace of the host, like any other.
            (None, _) if join.kind == NamespaceKind::Network => continue,
            (None, _) => {
                return refused(join, format!("process {} stands for no container of ours", join.pid));
            }
            (Some(found), Some(owner)) if found.id != owner.id => {
                let reason = format!(
                    "this namespace belongs to container {}, and another joined namespace to container {}",
                    found.id, owner.id
                );
                return refused(join, reason);
            }
            (Some(found), _) => owner = Some(found),
        }
        kinds.push(join.kind);
    }
    let Some(owner) = owner else { return Ok(None) };
    let sandbox = SandboxDir::open(root, &owner.sandbox)?;
    let record = sandbox.as_ref().map_or(Ok(None), SandboxDir::record)?;
    let (Some(sandbox), Some(record)) = (sandbox, record) else {
        let message = format!("the microVM of container {} is gone", owner.id);
        return Err(Error::Refused(message));
    };
    if let Some(NetworkPath { path, .. }) = &bundle.host.network
        && !kinds.contains(&NamespaceKind::Network)
    {
        let reason = format!(
            "a container in the microVM of {} can have the network of {} or none: it cannot have {}",
            owner.id,
            owner.id,
            path.display()
        );
        return Err(SpecError::Refused { field: "linux.namespaces".into(), reason }.into());
    }
    for namespace in &mut bundle.guest.namespaces {
        if kinds.contains(&namespace.kind) {
            namespace.place = NamespacePlace::Joined;
        }
    }
    bundle.guest.join = Some(owner.id.parse()?);
    let host = record.host_container.map_or_else(|| sandbox.id().to_string(), |host| host.to_string());
    Ok(Some(Joined { sandbox, host }))
}

fn refused<T>(join: &Join, reason: String) -> Result<T, Error> {
    Err(SpecError::Refused { field: join.field.clone(), reason }.into())
}

#[cfg(test)]
mod tests;
