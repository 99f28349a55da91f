//! What a pod gives each of its containers where the bundle has nothing: files at fixed places, and memory that they share.
//! An engine that makes no files for a pod leaves them to its runtime.

use std::path::Path;

use super::raw;

/// Their names in the directory of a pod.
pub(crate) const HOSTNAME: &str = "hostname";
pub(crate) const HOSTS: &str = "hosts";
pub(crate) const RESOLV_CONF: &str = "resolv.conf";
pub(crate) const SHARED_MEMORY: &str = "shm";

const MOUNTS: [(&str, &str); 4] = [
    (HOSTNAME, "/etc/hostname"),
    (HOSTS, "/etc/hosts"),
    (RESOLV_CONF, "/etc/resolv.conf"),
    (SHARED_MEMORY, "/dev/shm"),
];

/// Adds a bind of each; the one of shared memory comes in the place of the container's own.
pub(super) fn add(spec: &mut raw::Spec, directory: &Path) {
    let access = if spec.root.as_ref().is_some_and(|root| root.readonly) { "ro" } else { "rw" };
    for (name, destination) in MOUNTS {
        let is_there =
            |mount: &raw::Mount| mount.destination.as_deref().is_some_and(|path| same(path, destination));
        let access = if name == SHARED_MEMORY {
            spec.mounts.retain(|mount| !is_there(mount) || mount.kind.as_deref() != Some("tmpfs"));
            "rw"
        } else {
            access
        };
        if spec.mounts.iter().any(is_there) {
            continue;
        }
        spec.mounts.push(raw::Mount {
            destination: Some(destination.to_owned()),
            kind: Some("bind".to_owned()),
            source: Some(directory.join(name).to_string_lossy().into_owned()),
            options: ["rbind", "rprivate", access].map(str::to_owned).into(),
            ..raw::Mount::default()
        });
    }
}

fn same(path: &str, other: &str) -> bool {
    Path::new(path).components().eq(Path::new(other).components())
}

#[cfg(test)]
mod tests;
