//! Where the shim keeps what it has, and which daemon a container belongs to.
//!
//!   /run/containerd/bulkhead/state/NAMESPACE   state of the containers, the command's `--root`
//!   /run/containerd/bulkhead/s/NAMESPACE-POD   socket of a daemon
//!   /run/containerd/bulkhead/pods/NAMESPACE/POD   bundle and files of a pod that containerd has made none for
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

/// The bundle of a pod's sandbox, when the shim makes it.
pub(super) fn pod(namespace: &str, pod: &ContainerId) -> PathBuf {
    Path::new(HOME).join("pods").join(namespace).join(pod.as_str())
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
    process: Option<Process>,
    linux: Option<Linux>,
}

#[derive(Debug, Default, Deserialize)]
struct Process {
    args: Option<Vec<String>>,
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

/// What a bundle asks of the command that makes its container.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Wishes {
    /// A scope of systemd: `cgroupsPath` is slice:prefix:name. docker, and CRI with options that are not runc's, say so in no
    /// other way.
    pub(super) scope: bool,
    /// Nothing but to wait, as the pause container of a pod does: the guest's agent can do that without a program.
    pub(super) pause: bool,
}

/// # Errors
/// As for `pod_of`.
pub(super) fn wishes_of(bundle: &Path) -> io::Result<Wishes> {
    let spec = spec(bundle)?;
    let path = spec.linux.and_then(|linux| linux.cgroups_path).unwrap_or_default();
    let parts: Vec<&str> = path.split(':').collect();
    let annotations = spec.annotations.unwrap_or_default();
    let is_sandbox = POD.iter().any(|(kind, _)| annotations.get(*kind).is_some_and(|kind| kind == "sandbox"));
    let args = spec.process.and_then(|process| process.args).unwrap_or_default();
    Ok(Wishes {
        scope: matches!(parts[..], [slice, _, _] if slice.ends_with(".slice")) && !path.contains('/'),
        pause: is_sandbox && args == ["/pause"],
    })
}

#[cfg(test)]
mod tests;
