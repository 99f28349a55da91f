//! From a directory to a `Bundle`: read, parse, check, split. Fields are checked in the order of the file, so the first
//! error is the first mistake that a reader would find. Parts that are refused as a whole come before the checks that look
//! at the disk.

use std::{
    fs::{self, File},
    io::Read as _,
    path::{Path, PathBuf},
};

use bulkhead_protocol::{
    container::{Confinement, ContainerSpec, NamespaceKind, Propagation, PropagationMode, Rootfs, SharePath},
    hook::{HookState, StartHooks},
    id::ContainerId,
    limits,
};

use super::{
    Bundle, Hooks, HostPart, Policy, Profile, SpecError, devices, hooks, memory_policy,
    mounts::{self, OwnMaps},
    namespaces::{self, Namespaces},
    net_devices, personality, pod_files, pod_limits,
    process::{self, check_absolute, refuse_nul},
    raw, resources, seccomp, sysctl, vm,
};

/// `__NEW_UTS_LEN`.
const UTS_NAME_MAX: usize = 64;

pub(super) fn load(
    dir: &Path,
    id: &ContainerId,
    policy: &Policy,
    pod_files: Option<&Path>,
) -> Result<Bundle, SpecError> {
    let dir = fs::canonicalize(dir).map_err(|source| SpecError::Bundle { path: dir.to_owned(), source })?;
    let json = read_capped(&dir.join("config.json"))?;
    let mut spec: raw::Spec = raw::parse(&json, "config.json", "")?;
    if let Some(pod_files) = pod_files {
        pod_files::add(&mut spec, pod_files);
    }
    let (host, guest, seccomp) = split(&spec, &dir, id, policy)?;
    Ok(Bundle { dir, json, host, guest, seccomp })
}

/// At most `limits::CONFIG_JSON` bytes of a regular file: opening a fifo would wait for a writer.
pub(crate) fn read_capped(path: &Path) -> Result<Vec<u8>, SpecError> {
    let failed = |source| SpecError::Read { path: path.to_owned(), source };
    if !fs::metadata(path).map_err(failed)?.is_file() {
        return Err(SpecError::NotAFile { path: path.to_owned() });
    }
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(failed)?;
    file.take(limits::CONFIG_JSON + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > limits::CONFIG_JSON {
        return Err(SpecError::TooLarge { path: path.to_owned() });
    }
    Ok(bytes)
}

fn split(
    spec: &raw::Spec,
    dir: &Path,
    id: &ContainerId,
    policy: &Policy,
) -> Result<(HostPart, ContainerSpec, Option<Profile>), SpecError> {
    let oci_version = version(spec.oci_version.as_deref())?;
    refuse_unsupported(spec)?;
    let mut warnings = Vec::new();
    let linux = &spec.linux;
    let raw_process = spec.process.as_ref().ok_or_else(|| SpecError::Missing { field: "process".into() })?;
    let process = process::check(raw_process, policy, &mut warnings)?;
    let rootfs = rootfs(spec.root.as_ref(), dir)?;
    let rootfs_readonly = spec.root.as_ref().is_some_and(|root| root.readonly);
    let namespaces = namespaces::parse(&linux.namespaces)?;
    if linux.mount_label.as_deref().is_some_and(|label| !label.is_empty()) {
        warnings.push("linux.mountLabel is not applied: the guest has no SELinux".into());
    }
    if spec.annotations.contains_key("") {
        return Err(SpecError::Invalid { field: "annotations".into(), reason: "a key is empty".into() });
    }
    let hooks = hooks::parse(&spec.hooks)?;
    let seccomp = linux.seccomp.as_ref().map(|profile| seccomp::check(profile, &mut warnings)).transpose()?;
    let sysctl = sysctl::parse(&linux.sysctl, &namespaces, &policy.sysctls)?;
    let uid_mappings = namespaces::mappings(&linux.uid_mappings, "uidMappings", &namespaces)?;
    let gid_mappings = namespaces::mappings(&linux.gid_mappings, "gidMappings", &namespaces)?;
    let own_maps = OwnMaps { uids: &uid_mappings, gids: &gid_mappings };
    let mounts = mounts::parse(&spec.mounts, dir, id, own_maps, &policy.sockets, &mut warnings)?;
    let (devices, absent) = devices::nodes(&linux.devices, &linux.resources.devices)?;
    let (resources, limits) = resources::parse(&linux.resources, &devices, &mut warnings)?;
    let guest = ContainerSpec {
        rootfs: Rootfs {
            source: share_path(id)?,
            readonly: rootfs_readonly,
            propagation: propagation(linux.rootfs_propagation.as_deref())?,
        },
        uid_mappings,
        gid_mappings,
        time_offsets: namespaces::time_offsets(&linux.time_offsets, &namespaces)?,
        hostname: uts_name(spec.hostname.as_deref(), "hostname", &namespaces)?,
        domainname: uts_name(spec.domainname.as_deref(), "domainname", &namespaces)?,
        mounts: mounts.mounts,
        masked_paths: paths(&linux.masked_paths, "maskedPaths")?,
        readonly_paths: paths(&linux.readonly_paths, "readonlyPaths")?,
        sysctl: sysctl.own,
        guest_sysctl: sysctl.guest,
        confinement: Confinement {
            seccomp: None,
            personality: personality::parse(linux.personality.as_ref())?,
            memory_policy: memory_policy::parse(linux.memory_policy.as_ref())?,
        },
        resources,
        devices,
        namespaces: namespaces.0,
        join: None,
        process,
        pauses: false,
        start_hooks: start_hooks(&hooks, spec, dir, id),
    };
    check_size(&guest)?;
    let notes = absent.into_iter().collect();
    let host = HostPart {
        oci_version,
        rootfs,
        rootfs_readonly,
        exports: mounts.exports,
        disks: mounts.disks,
        network: namespaces::network(&linux.namespaces)?,
        net_devices: net_devices::parse(&linux.net_devices)?,
        joins: namespaces::joins(&linux.namespaces)?,
        cgroups_path: cgroups_path(linux.cgroups_path.as_deref())?,
        limits,
        pod: pod_limits::parse(&spec.annotations)?,
        annotations: spec.annotations.clone(),
        terminal: raw_process.terminal,
        hooks,
        vm: vm::parse(spec.vm.as_ref(), &spec.annotations)?,
        warnings,
        notes,
    };
    Ok((host, guest, seccomp))
}

fn start_hooks(hooks: &Hooks, spec: &raw::Spec, dir: &Path, id: &ContainerId) -> Option<StartHooks> {
    if hooks.start_container.is_empty() {
        return None;
    }
    let state = HookState {
        oci_version: spec.oci_version.clone().unwrap_or_default(),
        id: id.to_string(),
        bundle: dir.display().to_string(),
        annotations: spec.annotations.clone(),
    };
    Some(StartHooks { hooks: hooks.start_container.clone(), state })
}

/// Semantic versioning, major 1. A later minor version only adds properties, which are ignored or refused by name.
fn version(version: Option<&str>) -> Result<String, SpecError> {
    let version = version.ok_or_else(|| SpecError::Missing { field: "ociVersion".into() })?;
    let invalid = |reason| SpecError::Invalid { field: "ociVersion".into(), reason };
    let core = version.split_once(['-', '+']).map_or(version, |(core, _)| core);
    let numbers: Vec<Option<u32>> = core.split('.').map(|number| number.parse().ok()).collect();
    match numbers.as_slice() {
        [Some(1), Some(_), Some(_)] => Ok(version.to_owned()),
        [Some(_), Some(_), Some(_)] => {
            Err(invalid(format!("{version} is not supported: 1.0.0 to 1.3.0 are")))
        }
        _ => Err(invalid(format!("{version:?} is not a version (major.minor.patch)"))),
    }
}

fn refuse_unsupported(spec: &raw::Spec) -> Result<(), SpecError> {
    let linux = &spec.linux;
    if raw::asks_for_something(linux.intel_rdt.as_ref()) {
        let reason = "cache and bandwidth classes belong to the host's CPUs".into();
        return Err(SpecError::Refused { field: "linux.intelRdt".into(), reason });
    }
    Ok(())
}

fn rootfs(root: Option<&raw::Root>, dir: &Path) -> Result<PathBuf, SpecError> {
    let field = || "root.path".to_owned();
    let root = root.ok_or_else(|| SpecError::Missing { field: "root".into() })?;
    let path = root.path.as_deref().filter(|path| !path.is_empty());
    let path = path.ok_or_else(|| SpecError::Missing { field: field() })?;
    refuse_nul(path, field)?;
    let path = dir.join(path);
    let failed = |source| SpecError::Path { field: field(), path: path.clone(), source };
    let real = fs::canonicalize(&path).map_err(failed)?;
    if fs::metadata(&real).map_err(failed)?.is_dir() {
        Ok(real)
    } else {
        Err(SpecError::Invalid { field: field(), reason: format!("{} is not a directory", path.display()) })
    }
}

fn share_path(id: &ContainerId) -> Result<SharePath, SpecError> {
    let path = SharePath::try_from(format!("{id}/rootfs"));
    path.map_err(|error| SpecError::Invalid { field: "root.path".into(), reason: error.to_string() })
}

fn propagation(name: Option<&str>) -> Result<Option<Propagation>, SpecError> {
    let Some(name) = name.filter(|name| !name.is_empty()) else { return Ok(None) };
    let (mode, recursive) = match name {
        "private" => (PropagationMode::Private, false),
        "rprivate" => (PropagationMode::Private, true),
        "shared" => (PropagationMode::Shared, false),
        "rshared" => (PropagationMode::Shared, true),
        "slave" => (PropagationMode::Slave, false),
        "rslave" => (PropagationMode::Slave, true),
        "unbindable" => (PropagationMode::Unbindable, false),
        "runbindable" => (PropagationMode::Unbindable, true),
        other => {
            let reason =
                format!("{other:?} is not one of private, shared, slave, unbindable, or with r in front");
            return Err(SpecError::Invalid { field: "linux.rootfsPropagation".into(), reason });
        }
    };
    Ok(Some(Propagation { mode, recursive }))
}

/// `hostname` or `domainname`: set in the container's own UTS namespace or nowhere.
fn uts_name(
    name: Option<&str>,
    field: &'static str,
    namespaces: &Namespaces,
) -> Result<Option<String>, SpecError> {
    let Some(name) = name.filter(|name| !name.is_empty()) else { return Ok(None) };
    let invalid = |reason: String| SpecError::Invalid { field: field.into(), reason };
    if !namespaces.has(NamespaceKind::Uts) {
        return Err(invalid("there is no namespace of type uts to set it in".into()));
    }
    if name.len() > UTS_NAME_MAX {
        return Err(invalid(format!("{} bytes are more than {UTS_NAME_MAX}", name.len())));
    }
    refuse_nul(name, || field.into())?;
    Ok(Some(name.to_owned()))
}

fn paths(paths: &[String], name: &str) -> Result<Vec<String>, SpecError> {
    for (index, path) in paths.iter().enumerate() {
        check_absolute(path, || format!("linux.{name}[{index}]"))?;
    }
    Ok(paths.to_vec())
}

fn cgroups_path(path: Option<&str>) -> Result<Option<String>, SpecError> {
    let Some(path) = path.filter(|path| !path.is_empty()) else { return Ok(None) };
    let field = || "linux.cgroupsPath".to_owned();
    refuse_nul(path, field)?;
    if path.split('/').any(|part| part == "..") {
        return Err(SpecError::Invalid { field: field(), reason: format!("{path:?} has a `..`") });
    }
    Ok(Some(path.to_owned()))
}

/// The agent takes no more bytes than this. The check comes here, where nothing has been touched yet.
fn check_size(guest: &ContainerSpec) -> Result<(), SpecError> {
    let bytes = serde_json::to_vec(guest)
        .map_err(|source| SpecError::Json { what: "the guest's part of config.json", source })?
        .len();
    if bytes > limits::CONTAINER_SPEC {
        let reason = format!("{bytes} bytes for the guest are more than {}", limits::CONTAINER_SPEC);
        return Err(SpecError::Invalid { field: "config.json".into(), reason });
    }
    Ok(())
}

#[cfg(test)]
mod tests;
