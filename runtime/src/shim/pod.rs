//! A pod's sandbox as CRI describes it to a sandbox service, and the bundle that the shim makes of it: containerd makes none.
//!
//!   CreateSandboxRequest { netns_path, options: PodSandboxConfig } ─parse─▶ Pod ─lay out─▶ config.json, rootfs/ (empty),
//!   hostname, hosts, resolv.conf, shm (a tmpfs: where the guest has it, it is the guest's memory)
//!
//! The sandbox is a container that runs no program. It holds the namespaces that the pod's containers join by its pid, and gives
//! them its files.

use std::{
    collections::BTreeMap,
    fs::{self, DirBuilder},
    io,
    os::unix::fs::{DirBuilderExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use bulkhead_protocol::{
    id::ContainerId,
    limits,
    pod::{DnsConfig, NamespaceMode, PodSandboxConfig},
};
use containerd_shim_protos::sandbox_api::CreateSandboxRequest;
use nix::mount::{MsFlags, mount};
use protobuf::Message as _;
use serde_json::{Value, json};

use super::mounts::{MountError, unmount_all};
use crate::spec::{HOSTNAME, HOSTS, POD_CPU_PERIOD, POD_CPU_QUOTA, POD_MEMORY, RESOLV_CONF, SHARED_MEMORY};

/// The type of the options that describe a pod.
const CONFIG: &str = "runtime.v1.PodSandboxConfig";
/// Bytes of `/dev/shm`: as much as containerd gives a pod.
const SHARED_MEMORY_SIZE: &str = "size=65536k,mode=1777";
/// Lines of resolv.conf in all, and bytes of one: far above what resolvers read.
const DNS_MAX: usize = 64;
const LINE_MAX: usize = 2048;

#[derive(Debug, thiserror::Error)]
pub(super) enum PodError {
    #[error("the options of the sandbox are {0:?}, and not {CONFIG}")]
    Kind(String),
    #[error("the options of the sandbox take {0} bytes; at most {max}", max = limits::CONFIG_JSON)]
    Large(usize),
    #[error("read the options of the sandbox")]
    Config(#[source] protobuf::Error),
    #[error(
        "a pod in a microVM cannot have the host's network: leave the runtime class out for pods with hostNetwork"
    )]
    HostNetwork,
    #[error("the path of the network namespace, {0:?}, is not absolute")]
    Network(String),
    #[error(
        "a user namespace of a pod is not supported by the sandbox service: use `sandboxer = \"podsandbox\"`"
    )]
    UserNamespace,
    #[error("{0} is no text of a single line")]
    Line(&'static str),
    #[error("the DNS configuration has {0} entries; at most {DNS_MAX}")]
    Dns(usize),
    #[error(transparent)]
    Unmount(#[from] MountError),
    #[error("{step} {}", path.display())]
    Io { step: &'static str, path: PathBuf, source: io::Error },
}

fn io_of(step: &'static str, path: &Path) -> impl FnOnce(io::Error) -> PodError {
    move |source| PodError::Io { step, path: path.to_owned(), source }
}

/// A pod that can be made.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Pod {
    id: ContainerId,
    netns: String,
    /// `None`: the node's.
    hostname: Option<String>,
    /// `None`: the node's.
    resolv_conf: Option<String>,
    annotations: BTreeMap<String, String>,
    sysctls: BTreeMap<String, String>,
    cgroups_path: Option<String>,
}

impl Pod {
    /// # Errors
    /// What is no description of a pod, or of one that cannot be.
    pub(super) fn parse(id: ContainerId, request: &CreateSandboxRequest) -> Result<Self, PodError> {
        let config = config(request)?;
        let namespaces = config.linux.security_context.namespace_options.clone().unwrap_or_default();
        if request.netns_path.is_empty() || namespaces.network.enum_value() == Ok(NamespaceMode::NODE) {
            return Err(PodError::HostNetwork);
        }
        if !request.netns_path.starts_with('/') {
            return Err(PodError::Network(request.netns_path.clone()));
        }
        let own_users =
            |users: &bulkhead_protocol::pod::UserNamespace| users.mode.enum_value() == Ok(NamespaceMode::POD);
        if namespaces.userns_options.as_ref().is_some_and(own_users) {
            return Err(PodError::UserNamespace);
        }
        let hostname = Some(config.hostname.clone()).filter(|name| !name.is_empty());
        if let Some(name) = &hostname {
            check_line("the host name", name)?;
        }
        let mut annotations: BTreeMap<_, _> = request.annotations.clone().into_iter().collect();
        annotations.extend(config.annotations.clone());
        // The same that containerd gives the container of a sandbox.
        annotations.extend(
            [
                ("io.kubernetes.cri.container-type", "sandbox"),
                ("io.kubernetes.cri.sandbox-id", id.as_str()),
                ("io.kubernetes.cri.sandbox-name", &config.metadata.name),
                ("io.kubernetes.cri.sandbox-namespace", &config.metadata.namespace),
                ("io.kubernetes.cri.sandbox-uid", &config.metadata.uid),
            ]
            .map(|(key, value)| (key.to_owned(), value.to_owned())),
        );
        if let Some(limits) = config.linux.resources.as_ref() {
            let limits = [
                (POD_CPU_PERIOD, limits.cpu_period),
                (POD_CPU_QUOTA, limits.cpu_quota),
                (POD_MEMORY, limits.memory_limit_in_bytes),
            ];
            annotations.extend(limits.map(|(key, value)| (key.to_owned(), value.to_string())));
        }
        Ok(Self {
            netns: request.netns_path.clone(),
            hostname,
            resolv_conf: config.dns_config.as_ref().map(resolv_conf).transpose()?.flatten(),
            annotations,
            sysctls: config.linux.sysctls.clone().into_iter().collect(),
            cgroups_path: cgroups_path(&config.linux.cgroup_parent, &id),
            id,
        })
    }

    /// Makes its bundle; what is there of a pod with this id is cleared before.
    ///
    /// # Errors
    /// What cannot be made; nothing is left then.
    pub(super) fn lay_out(&self, directory: &Path) -> Result<(), PodError> {
        clear(directory)?;
        let made = self.make(directory);
        if made.is_err() {
            let _ = clear(directory);
        }
        made
    }

    fn make(&self, directory: &Path) -> Result<(), PodError> {
        let make = |path: &Path, mode: u32| {
            let made = DirBuilder::new().recursive(true).mode(mode).create(path);
            made.map_err(io_of("make", path))
        };
        let write = |name: &str, text: &[u8]| {
            let path = directory.join(name);
            // Any user of a container reads them, whatever the daemon's umask is.
            let written = fs::write(&path, text)
                .and_then(|()| fs::set_permissions(&path, fs::Permissions::from_mode(0o644)));
            written.map_err(io_of("write", &path))
        };
        make(directory, 0o700)?;
        make(&directory.join("rootfs"), 0o755)?;
        let hostname = match &self.hostname {
            Some(name) => name.clone(),
            None => rustix::system::uname().nodename().to_string_lossy().into_owned(),
        };
        write(HOSTNAME, format!("{hostname}\n").as_bytes())?;
        write(HOSTS, hosts(&hostname).as_bytes())?;
        let resolv_conf = match &self.resolv_conf {
            Some(text) => text.clone().into_bytes(),
            None => fs::read("/etc/resolv.conf").unwrap_or_default(),
        };
        write(RESOLV_CONF, &resolv_conf)?;
        let config = self.config_json(&hostname, &directory.join(SHARED_MEMORY)).to_string();
        write("config.json", config.as_bytes())?;
        let memory = directory.join(SHARED_MEMORY);
        make(&memory, 0o1777)?;
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
        let mounted = mount(Some("shm"), &memory, Some("tmpfs"), flags, Some(SHARED_MEMORY_SIZE));
        mounted.map_err(|errno| io_of("mount a tmpfs at", &memory)(errno.into()))
    }

    fn config_json(&self, hostname: &str, memory: &Path) -> Value {
        let mount = |destination: &str, kind: &str, options: &[&str]| json!({"destination": destination, "type": kind, "source": kind, "options": options});
        json!({
            "ociVersion": "1.0.2",
            "process": {
                "user": {"uid": 65535, "gid": 65535},
                "args": ["pause"],
                "cwd": "/",
                "noNewPrivileges": true,
                "oomScoreAdj": -998,
            },
            "root": {"path": "rootfs", "readonly": true},
            "hostname": hostname,
            "annotations": self.annotations,
            "mounts": [
                mount("/proc", "proc", &["nosuid", "noexec", "nodev"]),
                mount("/dev", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
                // Held here: what a container leaves in it is there for the next one.
                {"destination": "/dev/shm", "type": "bind", "source": memory, "options": ["rbind", "rprivate", "rw"]},
                mount("/sys", "sysfs", &["nosuid", "noexec", "nodev", "ro"]),
            ],
            "linux": {
                "cgroupsPath": self.cgroups_path,
                "sysctl": self.sysctls,
                "namespaces": [
                    {"type": "pid"}, {"type": "ipc"}, {"type": "uts"}, {"type": "mount"},
                    {"type": "network", "path": self.netns},
                ],
            },
        })
    }
}

/// Removes the bundle of a pod, also one that is not there.
///
/// # Errors
/// What cannot be removed.
pub(super) fn clear(directory: &Path) -> Result<(), PodError> {
    unmount_all(&directory.join(SHARED_MEMORY))?;
    match fs::remove_dir_all(directory) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(io_of("remove", directory)(error)),
        _ => Ok(()),
    }
}

fn config(request: &CreateSandboxRequest) -> Result<PodSandboxConfig, PodError> {
    let options = request.options.clone().unwrap_or_default();
    if options.type_url.rsplit('/').next() != Some(CONFIG) {
        return Err(PodError::Kind(options.type_url));
    }
    if options.value.len() as u64 > limits::CONFIG_JSON {
        return Err(PodError::Large(options.value.len()));
    }
    PodSandboxConfig::parse_from_bytes(&options.value).map_err(PodError::Config)
}

/// What a line of a file is made of must not begin another one.
fn check_line(what: &'static str, text: &str) -> Result<(), PodError> {
    if text.len() <= LINE_MAX && !text.chars().any(char::is_control) {
        Ok(())
    } else {
        Err(PodError::Line(what))
    }
}

/// `None` when nothing is configured.
fn resolv_conf(dns: &DnsConfig) -> Result<Option<String>, PodError> {
    let DnsConfig { servers, searches, options, .. } = dns;
    let entries = servers.len() + searches.len() + options.len();
    if entries > DNS_MAX {
        return Err(PodError::Dns(entries));
    }
    servers.iter().chain(searches).chain(options).try_for_each(|text| check_line("a DNS entry", text))?;
    let mut text = String::new();
    if !searches.is_empty() {
        text += &format!("search {}\n", searches.join(" "));
    }
    for server in servers {
        text += &format!("nameserver {server}\n");
    }
    if !options.is_empty() {
        text += &format!("options {}\n", options.join(" "));
    }
    Ok(Some(text).filter(|text| !text.is_empty()))
}

/// The kubelet has a file of its own; this is for other clients.
fn hosts(hostname: &str) -> String {
    format!("127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n127.0.1.1\t{hostname}\n")
}

/// As containerd names it: a slice of systemd, or a directory.
fn cgroups_path(parent: &str, id: &ContainerId) -> Option<String> {
    let slice = parent.rsplit('/').next().filter(|name| name.ends_with(".slice"));
    match (parent, slice) {
        ("", _) => None,
        (_, Some(slice)) => Some(format!("{slice}:cri-containerd:{id}")),
        (parent, None) => Some(format!("{}/{id}", parent.trim_end_matches('/'))),
    }
}

#[cfg(test)]
mod tests;
