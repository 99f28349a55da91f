//! Where the shim keeps what it has, and which daemon a container belongs to.
//!
//!   /run/containerd/bulkhead/state/NAMESPACE   state of the containers, the command's `--root`
//!   /run/containerd/bulkhead/s/NAMESPACE-POD   socket of a daemon
//!
//! containerd empties /run at a boot, and so is this.

use std::{
    collections::{BTreeMap, hash_map::DefaultHasher},
    fs::File,
    hash::{Hash as _, Hasher as _},
    io::{self, Read as _},
    path::{Path, PathBuf},
};

use bulkhead_protocol::{id::ContainerId, limits};
use serde::Deserialize;

/// For the sockets of terminals too, while one is handed over.
pub(super) const HOME: &str = "/run/containerd/bulkhead";
/// Bytes of the path of a socket, without the byte that ends it (unix(7)).
const SOCKET_PATH_MAX: usize = 106;

/// Names of the annotations by which an engine says that a container belongs to a pod: the kind, and the pod's container.
const POD: [(&str, &str); 2] = [
    ("io.kubernetes.cri.container-type", "io.kubernetes.cri.sandbox-id"),
    ("io.kubernetes.cri-o.ContainerType", "io.kubernetes.cri-o.SandboxID"),
];

/// `--root` of the commands for a namespace.
pub(super) fn root(namespace: &str) -> PathBuf {
    Path::new(HOME).join("state").join(namespace)
}

/// The socket of the daemon that serves `pod`.
pub(super) fn socket(namespace: &str, pod: &ContainerId) -> PathBuf {
    let directory = Path::new(HOME).join("s");
    let plain = directory.join(format!("{namespace}-{pod}"));
    if plain.as_os_str().len() <= SOCKET_PATH_MAX {
        return plain;
    }
    let mut hasher = DefaultHasher::new();
    (namespace, pod.as_str()).hash(&mut hasher);
    let short: String = pod.as_str().chars().take(32).collect();
    directory.join(format!("{short}-{:016x}", hasher.finish()))
}

/// What the shim itself reads of a spec.
#[derive(Debug, Default, Deserialize)]
struct Spec {
    annotations: Option<BTreeMap<String, String>>,
    linux: Option<Linux>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Linux {
    cgroups_path: Option<String>,
}

/// An empty one where there is no `config.json`.
fn spec(bundle: &Path) -> io::Result<Spec> {
    let file = match File::open(bundle.join("config.json")) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Spec::default()),
        Err(error) => return Err(error),
    };
    let mut json = Vec::new();
    file.take(limits::CONFIG_JSON).read_to_end(&mut json)?;
    Ok(serde_json::from_slice(&json)?)
}

/// The container of the pod that a bundle belongs to: that of its sandbox, or itself.
///
/// # Errors
/// When `config.json` is there and cannot be read, or names no id.
pub(super) fn pod_of(bundle: &Path, id: &ContainerId) -> io::Result<ContainerId> {
    let annotations = spec(bundle)?.annotations.unwrap_or_default();
    let pod = POD.iter().find_map(|(kind, pod)| {
        (annotations.get(*kind)? == "container").then(|| annotations.get(*pod)).flatten()
    });
    pod.map_or_else(|| Ok(id.clone()), |pod| pod.parse().map_err(io::Error::other))
}

/// Whether a bundle asks for a scope of systemd: `cgroupsPath` is slice:prefix:name. docker, and CRI with options that are not
/// runc's, say so in no other way.
///
/// # Errors
/// As for `pod_of`.
pub(super) fn asks_for_scope(bundle: &Path) -> io::Result<bool> {
    let path = spec(bundle)?.linux.and_then(|linux| linux.cgroups_path).unwrap_or_default();
    let parts: Vec<&str> = path.split(':').collect();
    Ok(matches!(parts[..], [slice, _, _] if slice.ends_with(".slice")) && !path.contains('/'))
}

#[cfg(test)]
mod tests;
