//! The plan: a specification turned into ordered steps, as pure data. Nothing is touched here.
//!
//!   ContainerSpec ─create()─┐
//!   ProcessSpec ────join()──┴─▶ Plan { launch, steps, program } ─JSON▶ container-init, which walks it
//!
//! The order is that of the kernel's needs: sources are opened before the guest's tree is left, nodes are made
//! before /dev turns read-only, masks come after the mounts they cover, ids change last. What contradicts itself,
//! or cannot be honoured, is refused here by name.

use std::{
    collections::HashSet,
    path::{Path, PathBuf},
};

use bulkhead_protocol::{
    container::{
        Capabilities, Confinement, ContainerSpec, Cpus, DeviceNode, IdMapping, MemoryPolicy, Mount,
        MountSource, NamespaceKind, NamespacePlace, Personality, Place, ProcessSpec, Propagation, Seccomp,
        SharePath, TimeOffsets, User,
    },
    hook::StartHooks,
    limits,
};
use bulkhead_sys::in_root::components;
use serde::{Deserialize, Serialize};

use super::{
    devices::{self, Disks},
    error::ContainerError,
    mounts::{READ_ONLY, late_attributes},
    namespaces::{self, bit},
    rlimits, sysctl,
    volumes::Mounts,
};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Plan {
    pub(super) launch: Launch,
    /// Done by the container's process itself, in order, before it parks.
    pub(super) steps: Vec<Step>,
    /// After its release: what must not bind the steps before, nor the wait.
    pub(super) last_steps: Vec<Step>,
    pub(super) args: Vec<String>,
    pub(super) env: Vec<String>,
    /// Of a new container, just before its program.
    pub(super) start_hooks: Option<StartHooks>,
    /// Instead of a program.
    pub(super) pauses: bool,
}

/// How the process is forked, done by the launcher as root of the guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Launch {
    /// `CLONE_NEW*` bits: to make for a container, to join for a further process.
    pub(super) namespaces: u32,
    /// Set before the fork, so it counts for the set-up too.
    pub(super) oom_score_adj: i32,
    /// The launcher's own, until the fork into the cgroup.
    pub(super) initial_cpus: Option<Cpus>,
    /// Who gets the streams, by the ids of the guest: a user namespace may not give away what is the guest's.
    pub(super) stream_owner: Option<u32>,
    pub(super) kind: LaunchKind,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum LaunchKind {
    Create {
        outside: Box<Outside>,
        time_offsets: TimeOffsets,
        /// Files below /proc/sys and their values, of the whole guest.
        guest_sysctl: Vec<(String, String)>,
        uid_mappings: Vec<IdMapping>,
        gid_mappings: Vec<IdMapping>,
        /// Namespaces of the process whose pidfd comes along, then.
        joined: u32,
    },
    /// Into the namespaces of the process whose pidfd comes along.
    Join,
}

/// What is opened in the guest's tree before it is left.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Outside {
    pub(super) share: PathBuf,
    pub(super) rootfs: SharePath,
    pub(super) binds: Vec<Bind>,
    /// Filesystems with an id map, which the container's own root could not set.
    pub(super) mapped: Vec<Mount>,
    /// Guest devices, for where no node can be made.
    pub(super) nodes: Vec<String>,
    /// Whether the guest's null device is needed to mask files.
    pub(super) cover: bool,
    /// The container's cgroup, where it shall see that without a namespace of its own.
    pub(super) cgroup: Option<PathBuf>,
}

/// Where things are in the guest.
#[derive(Debug, Clone, Copy)]
pub(super) struct Places<'a> {
    pub(super) share: &'a Path,
    /// Where each volume of the container is mounted.
    pub(super) volumes: &'a Mounts,
    /// The container's cgroup.
    pub(super) cgroup: &'a Path,
    /// Those that its devices name.
    pub(super) disks: &'a Disks,
}

/// What every process of a container has from it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Inherited<'a> {
    pub(super) confinement: &'a Confinement,
    /// Of its user namespace; empty without one.
    pub(super) uid_mappings: &'a [IdMapping],
}

/// The source of a bind, or of a mount below it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Bind {
    /// Where its volume is mounted.
    pub(super) volume: PathBuf,
    /// In the volume; `None` is all of it.
    pub(super) path: Option<SharePath>,
    /// `MOUNT_ATTR_*` bits that it has, unless the mount says otherwise.
    pub(super) attributes: u64,
}

/// What is mounted below a bind, in that order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct BelowBind {
    /// The number of the bind source.
    pub(super) source: usize,
    pub(super) below: SharePath,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Step {
    NewSession,
    /// Keys of other containers with the same user are not ours.
    NewKeyring,
    /// Become id 0 of the new user namespace.
    BecomeRootInside,
    CgroupNamespace,
    LoopbackUp,
    Hostname(String),
    Domainname(String),
    /// Attach the rootfs; the later steps work in it.
    Rootfs,
    /// Attach bind source number `source` of the launch.
    BindMount {
        source: usize,
        mount: Mount,
        submounts: Vec<BelowBind>,
    },
    FilesystemMount(Mount),
    /// Attach filesystem number `source` of the launch.
    MappedMount {
        source: usize,
        mount: Mount,
    },
    Remount(Mount),
    /// `own_namespace`: mount cgroup2, whose root is then ours; else bind our own directory.
    CgroupMount {
        own_namespace: bool,
        mount: Mount,
    },
    Device {
        node: DeviceNode,
        /// Where the guest has the device.
        guest: String,
    },
    DeviceLink {
        target: String,
        path: String,
    },
    WorkingDirectory(String),
    /// A file below /proc/sys.
    Sysctl {
        file: String,
        value: String,
    },
    PivotRoot,
    /// Make the pty, with columns and rows, and hand its master over.
    Terminal {
        size: Option<(u16, u16)>,
        plain_line_feeds: bool,
        console: bool,
    },
    /// Set what had to wait until all was made in it.
    ReadOnlyMount(String),
    SealRootfs {
        readonly: bool,
        propagation: Option<Propagation>,
    },
    ReadOnlyPath(String),
    MaskPath(String),
    /// stdin, stdout and stderr at their places, owned by the user.
    Stdio {
        uid: u32,
    },
    /// Complete the environment from the image.
    Environment {
        uid: u32,
    },
    EnterDirectory(String),
    Bounds(Capabilities),
    BecomeUser(User),
    /// As the user, when root could not; then verified.
    EnterDirectoryAsUser(String),
    Personality(Personality),
    MemoryPolicy(MemoryPolicy),
    /// `for_filter`: what the filter needs is kept until the exec.
    Capabilities {
        for_filter: bool,
    },
    NoNewPrivileges,
    FindProgram,
    ResetSignals,
    CloseDescriptors,
    /// `privileged`: without no_new_privs, which takes a capability.
    Filter {
        seccomp: Seccomp,
        privileged: bool,
    },
}

/// For a new container.
pub(super) fn create(places: Places<'_>, spec: &ContainerSpec) -> Result<Plan, ContainerError> {
    let (namespaces, joined) = chosen_namespaces(spec)?;
    check_process(&spec.process)?;
    let has = |kind| namespaces & bit(kind) != 0;
    let mut steps = vec![Step::NewSession, Step::NewKeyring];
    if has(NamespaceKind::User) {
        check_mappings(spec)?;
        steps.push(Step::BecomeRootInside);
    } else if !(spec.uid_mappings.is_empty() && spec.gid_mappings.is_empty()) {
        return Err(ContainerError::refused(
            "linux.uidMappings: the container needs a user namespace of its own",
        ));
    }
    if has(NamespaceKind::Cgroup) {
        steps.push(Step::CgroupNamespace);
    }
    if has(NamespaceKind::Network) {
        steps.push(Step::LoopbackUp);
    }
    names(spec, (namespaces | joined) & bit(NamespaceKind::Uts) != 0, &mut steps)?;
    steps.push(Step::Rootfs);
    let (binds, mapped) = mount_steps(places.volumes, spec, has(NamespaceKind::Cgroup), &mut steps)?;
    let nodes = device_steps(spec, places.disks, &mut steps)?;
    steps.push(Step::WorkingDirectory(spec.process.cwd.clone()));
    for (key, value) in &spec.sysctl {
        steps.push(Step::Sysctl { file: sysctl::own_file_of(key)?, value: value.clone() });
    }
    steps.push(Step::PivotRoot);
    terminal(&spec.process, true, &mut steps);
    seal_steps(spec, &mut steps)?;
    process_steps(&spec.process, &spec.confinement, &mut steps);
    let foreign_cgroup = |step: &Step| matches!(step, Step::CgroupMount { own_namespace: false, .. });
    let outside = Outside {
        share: places.share.to_owned(),
        rootfs: spec.rootfs.source.clone(),
        binds,
        mapped,
        nodes,
        cover: !spec.masked_paths.is_empty(),
        cgroup: steps.iter().any(foreign_cgroup).then(|| places.cgroup.to_owned()),
    };
    let guest_sysctl = spec.guest_sysctl.iter();
    let kind = LaunchKind::Create {
        outside: Box::new(outside),
        time_offsets: time_offsets(spec, has(NamespaceKind::Time))?,
        guest_sysctl: guest_sysctl
            .map(|(key, value)| Ok((sysctl::file_of(key)?, value.clone())))
            .collect::<Result<_, ContainerError>>()?,
        uid_mappings: spec.uid_mappings.clone(),
        gid_mappings: spec.gid_mappings.clone(),
        joined,
    };
    let inherited = Inherited { confinement: &spec.confinement, uid_mappings: &spec.uid_mappings };
    let mut plan = finish(&spec.process, inherited, namespaces, kind, steps);
    plan.start_hooks.clone_from(&spec.start_hooks);
    if spec.pauses {
        // Nothing of the container's is run, so a filter would bind the agent's own code alone.
        plan.steps.retain(|step| *step != Step::FindProgram);
        plan.last_steps.clear();
        plan.pauses = true;
    }
    Ok(plan)
}

/// For a further process of a container that is in `namespaces`.
pub(super) fn join(
    namespaces: u32,
    process: &ProcessSpec,
    inherited: Inherited<'_>,
) -> Result<Plan, ContainerError> {
    if namespaces & namespaces::MOUNT == 0 {
        // Every container has one: what is looked at is none, and a program would run in the guest's own tree.
        return Err(ContainerError::refused("the process whose namespaces are joined is not in a container"));
    }
    check_process(process)?;
    let mut steps = vec![Step::NewSession, Step::NewKeyring];
    if namespaces & namespaces::USER != 0 {
        steps.push(Step::BecomeRootInside);
    }
    terminal(process, false, &mut steps);
    process_steps(process, inherited.confinement, &mut steps);
    let mut plan = finish(process, inherited, namespaces, LaunchKind::Join, steps);
    plan.launch.initial_cpus = process.scheduling.exec_cpus.and_then(|cpus| cpus.initial);
    Ok(plan)
}

fn finish(
    process: &ProcessSpec,
    inherited: Inherited<'_>,
    namespaces: u32,
    kind: LaunchKind,
    steps: Vec<Step>,
) -> Plan {
    // Not given means the kernel's default: the agent's own protection from the killer must not be inherited.
    let oom_score_adj = process.oom_score_adj.unwrap_or(0);
    Plan {
        launch: Launch {
            namespaces,
            oom_score_adj,
            initial_cpus: None,
            stream_owner: outer_id(process.user.uid, inherited.uid_mappings),
            kind,
        },
        steps,
        last_steps: last_steps(process, inherited.confinement),
        args: process.args.clone(),
        env: process.env.clone(),
        start_hooks: None,
        pauses: false,
    }
}

/// The guest's id of an id of the container, which may have a user namespace.
fn outer_id(id: u32, mappings: &[IdMapping]) -> Option<u32> {
    if mappings.is_empty() {
        return Some(id);
    }
    mappings.iter().find_map(|mapping| {
        let offset = id.checked_sub(mapping.container).filter(|offset| *offset < mapping.size)?;
        mapping.host.checked_add(offset)
    })
}

/// Those that are new, and those that are another container's.
fn chosen_namespaces(spec: &ContainerSpec) -> Result<(u32, u32), ContainerError> {
    let mut seen = HashSet::new();
    let (mut new, mut joined) = (0, 0);
    for namespace in &spec.namespaces {
        if !seen.insert(namespace.kind) {
            return Err(ContainerError::refused(format_args!(
                "namespace {:?} is given twice",
                namespace.kind
            )));
        }
        match (namespace.place, namespace.kind) {
            (NamespacePlace::New, kind) => new |= bit(kind),
            (
                NamespacePlace::Joined,
                kind
                @ (NamespaceKind::Pid | NamespaceKind::Ipc | NamespaceKind::Uts | NamespaceKind::Network),
            ) => joined |= bit(kind),
            (NamespacePlace::Joined, kind) => {
                return Err(ContainerError::refused(format_args!("namespace {kind:?} cannot be joined")));
            }
        }
    }
    if (joined != 0) != spec.join.is_some() {
        return Err(ContainerError::refused(
            "linux.namespaces: a namespace is joined if and only if the container that it belongs to is named",
        ));
    }
    if new & namespaces::MOUNT == 0 {
        return Err(ContainerError::refused(
            "linux.namespaces: a container needs a mount namespace of its own",
        ));
    }
    Ok((new, joined))
}

fn time_offsets(spec: &ContainerSpec, own: bool) -> Result<TimeOffsets, ContainerError> {
    let offsets = spec.time_offsets;
    if offsets != TimeOffsets::default() && !own {
        return Err(ContainerError::refused(
            "linux.timeOffsets: the container needs a time namespace of its own",
        ));
    }
    Ok(offsets)
}

fn check_mappings(spec: &ContainerSpec) -> Result<(), ContainerError> {
    for (what, mappings) in [("uid", &spec.uid_mappings), ("gid", &spec.gid_mappings)] {
        let maps_root = mappings.iter().any(|m| m.container == 0 && m.size > 0);
        if !maps_root {
            return Err(ContainerError::refused(format_args!(
                "linux.{what}Mappings: {what} 0 of the container is not mapped"
            )));
        }
    }
    Ok(())
}

/// What the agent's own safety, or a clear answer, depends on.
fn check_process(process: &ProcessSpec) -> Result<(), ContainerError> {
    if process.args.is_empty() {
        return Err(ContainerError::refused("process.args is empty"));
    }
    absolute("process.cwd", &process.cwd)?;
    if process.console_size.is_some() && !process.terminal {
        return Err(ContainerError::refused("process.consoleSize: the process needs a terminal"));
    }
    rlimits::check(&process.inherited_rlimits)?;
    rlimits::check(&process.rlimits)
}

fn absolute(what: &str, path: &str) -> Result<(), ContainerError> {
    if path.starts_with('/') && !path.contains('\0') {
        return Ok(());
    }
    Err(ContainerError::refused(format_args!("{what} {path:?} is not an absolute path")))
}

fn names(spec: &ContainerSpec, own: bool, steps: &mut Vec<Step>) -> Result<(), ContainerError> {
    if (spec.hostname.is_some() || spec.domainname.is_some()) && !own {
        return Err(ContainerError::refused("hostname: the container needs a UTS namespace of its own"));
    }
    steps.extend(spec.hostname.clone().map(Step::Hostname));
    steps.extend(spec.domainname.clone().map(Step::Domainname));
    Ok(())
}

/// Answers what the launch must open and make: bind sources and filesystems with an id map.
fn mount_steps(
    volumes: &Mounts,
    spec: &ContainerSpec,
    own_cgroup: bool,
    steps: &mut Vec<Step>,
) -> Result<(Vec<Bind>, Vec<Mount>), ContainerError> {
    if spec.mounts.len() > limits::MOUNTS {
        let (given, most) = (spec.mounts.len(), limits::MOUNTS);
        return Err(ContainerError::refused(format_args!(
            "mounts: {given} are given, and at most {most} are supported"
        )));
    }
    let (mut binds, mut mapped) = (Vec::new(), Vec::new());
    for mount in &spec.mounts {
        absolute("mount destination", &mount.destination)?;
        if mount.copy_up && !mount.source.is_tmpfs() {
            return Err(ContainerError::refused(format_args!(
                "mount {:?}: tmpcopyup needs a tmpfs",
                mount.destination
            )));
        }
        if mount.id_map.is_some() && !mount.source.is_tmpfs() {
            return Err(ContainerError::refused(format_args!(
                "mount {:?}: an id map needs a tmpfs",
                mount.destination
            )));
        }
        let mount = mount.clone();
        steps.push(match &mount.source {
            MountSource::Bind { place, submounts } => {
                binds.push(bind(volumes, place)?);
                let source = binds.len() - 1;
                let mut below = Vec::new();
                for submount in submounts {
                    binds.push(bind(volumes, &submount.place)?);
                    below.push(BelowBind { source: binds.len() - 1, below: submount.below.clone() });
                }
                Step::BindMount { source, mount, submounts: below }
            }
            MountSource::Export { name } => {
                return Err(ContainerError::refused(format_args!(
                    "mount {:?}: the host has no volume for {}",
                    mount.destination,
                    name.as_str()
                )));
            }
            MountSource::Filesystem { .. } if mount.id_map.is_some() => {
                mapped.push(mount.clone());
                Step::MappedMount { source: mapped.len() - 1, mount }
            }
            MountSource::Filesystem { .. } => Step::FilesystemMount(mount),
            MountSource::Cgroup => Step::CgroupMount { own_namespace: own_cgroup, mount },
            MountSource::Remount => Step::Remount(mount),
        });
    }
    if binds.len() > limits::MOUNTS + limits::SUBMOUNTS {
        return Err(ContainerError::refused(format_args!(
            "mounts: there are {} with those below them, and at most {} are supported",
            binds.len(),
            limits::MOUNTS + limits::SUBMOUNTS
        )));
    }
    Ok((binds, mapped))
}

fn bind(volumes: &Mounts, place: &Place) -> Result<Bind, ContainerError> {
    let name = place.volume.name.as_str();
    let volume = volumes.get(name).cloned();
    let volume =
        volume.ok_or_else(|| ContainerError::refused(format_args!("volume {name} is not mounted")))?;
    Ok(Bind { volume, path: place.path.clone(), attributes: place.attributes })
}

/// Answers the guest devices to open.
fn device_steps(
    spec: &ContainerSpec,
    disks: &Disks,
    steps: &mut Vec<Step>,
) -> Result<Vec<String>, ContainerError> {
    let mut nodes = Vec::new();
    let dev_is_given = |mount: &Mount| {
        components(&mount.destination).eq(["dev"]) && matches!(mount.source, MountSource::Bind { .. })
    };
    if spec.mounts.iter().any(dev_is_given) {
        return Ok(nodes);
    }
    let given: HashSet<&str> = spec.devices.iter().map(|node| node.path.as_str()).collect();
    let defaults = devices::defaults().filter(|node| !given.contains(node.path.as_str()));
    for node in defaults.chain(spec.devices.iter().cloned()) {
        absolute("device", &node.path)?;
        let guest = devices::guest_path(&node, disks);
        nodes.push(guest.clone());
        steps.push(Step::Device { node, guest });
    }
    let link = |&(target, path): &(&str, &str)| Step::DeviceLink { target: target.into(), path: path.into() };
    steps.extend(devices::LINKS.iter().map(link));
    Ok(nodes)
}

fn terminal(process: &ProcessSpec, console: bool, steps: &mut Vec<Step>) {
    if process.terminal {
        let ProcessSpec { console_size: size, plain_line_feeds, .. } = *process;
        steps.push(Step::Terminal { size, plain_line_feeds, console });
    }
}

fn seal_steps(spec: &ContainerSpec, steps: &mut Vec<Step>) -> Result<(), ContainerError> {
    for mount in &spec.mounts {
        let flag = mount.super_flags.iter().any(|flag| flag == "ro");
        let wanted = (mount.set | mount.recursive_set) & READ_ONLY != 0 || flag;
        if late_attributes(mount) & READ_ONLY != 0 && wanted {
            steps.push(Step::ReadOnlyMount(mount.destination.clone()));
        }
    }
    steps.push(Step::SealRootfs { readonly: spec.rootfs.readonly, propagation: spec.rootfs.propagation });
    for path in &spec.readonly_paths {
        absolute("read-only path", path)?;
        steps.push(Step::ReadOnlyPath(path.clone()));
    }
    for path in &spec.masked_paths {
        absolute("masked path", path)?;
        steps.push(Step::MaskPath(path.clone()));
    }
    Ok(())
}

/// Without no_new_privs a filter takes CAP_SYS_ADMIN, which the program may not have.
fn filter_is_privileged(process: &ProcessSpec, confinement: &Confinement) -> bool {
    confinement.seccomp.is_some() && !process.no_new_privileges
}

fn process_steps(process: &ProcessSpec, confinement: &Confinement, steps: &mut Vec<Step>) {
    let uid = process.user.uid;
    steps.push(Step::Stdio { uid });
    steps.push(Step::Environment { uid });
    steps.push(Step::EnterDirectory(process.cwd.clone()));
    // No capabilities in the specification means none, not all.
    steps.push(Step::Bounds(process.capabilities.unwrap_or_default()));
    steps.push(Step::BecomeUser(process.user.clone()));
    steps.push(Step::EnterDirectoryAsUser(process.cwd.clone()));
    steps.extend(confinement.personality.map(Step::Personality));
    steps.extend(confinement.memory_policy.map(Step::MemoryPolicy));
    steps.push(Step::Capabilities { for_filter: filter_is_privileged(process, confinement) });
    if process.no_new_privileges {
        steps.push(Step::NoNewPrivileges);
    }
    steps.extend([Step::FindProgram, Step::ResetSignals, Step::CloseDescriptors]);
}

/// The filter is the last but the exec: a profile need allow nothing else of what we do.
fn last_steps(process: &ProcessSpec, confinement: &Confinement) -> Vec<Step> {
    let privileged = filter_is_privileged(process, confinement);
    confinement.seccomp.clone().map(|seccomp| Step::Filter { seccomp, privileged }).into_iter().collect()
}

#[cfg(test)]
pub(super) mod tests;
