//! Device nodes and the usual links of /dev.
//!
//! A node is made where the filesystem allows it: /dev is nearly always a tmpfs of the container. Where it does
//! not (a user namespace, or the rootfs itself, for virtio-fs never makes device nodes), the guest's own node is
//! bound over an empty file. A node that is already there must be the one that is wanted.
//!
//! Most numbers are the same on every Linux. A device that gets its number at boot is meant by its name, and a disk by the slot that
//! the host has plugged it into: the guest's number replaces the host's, in the rules as well.

use std::{
    borrow::Cow,
    collections::BTreeMap,
    os::fd::{AsRawFd as _, OwnedFd},
};

use bulkhead_protocol::{
    container::{ContainerSpec, DeviceKind, DeviceNode},
    vmm::Slot,
};
use bulkhead_sys::chain;
use rustix::{
    fs::{
        AtFlags, CWD, FileType, Gid, Mode, OFlags, Stat, Uid, chmod, chownat, fstat, major, makedev, minor,
        mknodat, openat, stat, symlinkat, unlinkat,
    },
    io::Errno,
};

use super::{
    detached::{attach, clone_tree},
    error::{ContainerError, During},
    path::{Root, child, stat_child},
};
use crate::hotplug::{BlockDevice, Sysfs};

/// The null device of the guest, which also masks files.
pub(super) const NULL: &str = "/dev/null";

/// What every container finds in /dev (runtime-spec, config-linux, "Default Devices").
const DEFAULTS: [(&str, u32, u32); 6] = [
    (NULL, 1, 3),
    ("/dev/zero", 1, 5),
    ("/dev/full", 1, 7),
    ("/dev/random", 1, 8),
    ("/dev/urandom", 1, 9),
    ("/dev/tty", 5, 0),
];

/// Further devices of the guest whose numbers are fixed (Documentation/admin-guide/devices.txt).
const FURTHER: [(&str, u32, u32); 5] = [
    ("/dev/kmsg", 1, 11),
    ("/dev/hwrng", 10, 183),
    ("/dev/net/tun", 10, 200),
    ("/dev/fuse", 10, 229),
    ("/dev/loop-control", 10, 237),
];

/// Links of /dev; /dev/ptmx leads to the container's own devpts.
pub(super) const LINKS: [(&str, &str); 6] = [
    ("/proc/self/fd", "/dev/fd"),
    ("/proc/self/fd/0", "/dev/stdin"),
    ("/proc/self/fd/1", "/dev/stdout"),
    ("/proc/self/fd/2", "/dev/stderr"),
    ("/proc/kcore", "/dev/core"),
    ("pts/ptmx", "/dev/ptmx"),
];

pub(super) fn defaults() -> impl Iterator<Item = DeviceNode> {
    DEFAULTS.iter().map(|&(path, major, minor)| DeviceNode {
        path: path.to_owned(),
        kind: DeviceKind::Char,
        major,
        minor,
        by_name: false,
        disk: None,
        mode: 0o666,
        uid: 0,
        gid: 0,
    })
}

/// The disks of a container, by the slot that each is in.
pub(super) type Disks = BTreeMap<Slot, BlockDevice>;

/// Where the guest has the device: under its usual name, whatever the container calls it.
pub(super) fn guest_path(node: &DeviceNode, disks: &Disks) -> String {
    if let Some(disk) = node.disk.and_then(|slot| disks.get(&slot)) {
        return disk_path(disk);
    }
    let known = DEFAULTS.iter().chain(&FURTHER);
    let same = |known: &&(&str, u32, u32)| {
        node.kind == DeviceKind::Char && (known.1, known.2) == (node.major, node.minor)
    };
    known.clone().find(same).map_or(&*node.path, |(path, _, _)| path).to_owned()
}

/// The guest's own node of a disk.
pub(super) fn disk_path(disk: &BlockDevice) -> String {
    format!("/dev/{}", disk.name)
}

/// What the guest's kernel has made of the disks that the devices name.
pub(super) fn disks(spec: &ContainerSpec, sysfs: &Sysfs) -> Result<Disks, ContainerError> {
    let slots = spec.devices.iter().filter_map(|node| Some((node.disk?, node)));
    slots
        .map(|(slot, node)| {
            let disk = sysfs.disk(slot.0.into()).map_err(|error| chain(&error));
            Ok((slot, disk.during("find the disk for", &node.path)?))
        })
        .collect()
}

/// The specification with the guest's own numbers for devices that are meant by name, and for disks.
pub(super) fn renumbered<'spec>(
    spec: &'spec ContainerSpec,
    disks: &Disks,
) -> Result<Cow<'spec, ContainerSpec>, ContainerError> {
    let mut own = Vec::new();
    for (index, node) in spec.devices.iter().enumerate() {
        own.extend(own_number(node, disks)?.map(|(major, minor)| (index, major, minor)));
    }
    if own.is_empty() {
        return Ok(Cow::Borrowed(spec));
    }
    let mut renumbered = spec.clone();
    for &(index, major, minor) in &own {
        let hosts = &spec.devices[index];
        // By the rules as they were given: a number of the guest's may be that of another device of the host.
        for (rule, given) in renumbered.resources.devices.iter_mut().zip(&spec.resources.devices) {
            if given.kind.is_none_or(|kind| kind == hosts.kind)
                && (given.major, given.minor) == (Some(hosts.major), Some(hosts.minor))
            {
                (rule.major, rule.minor) = (Some(major), Some(minor));
            }
        }
        (renumbered.devices[index].major, renumbered.devices[index].minor) = (major, minor);
    }
    Ok(Cow::Owned(renumbered))
}

/// The guest's number of a device whose number in the specification is the host's.
fn own_number(node: &DeviceNode, disks: &Disks) -> Result<Option<(u32, u32)>, ContainerError> {
    const STEP: &str = "look for the guest's device";
    if let Some(disk) = node.disk.and_then(|slot| disks.get(&slot)) {
        return Ok(Some((disk.major, disk.minor)));
    }
    if node.kind == DeviceKind::Block {
        return Err("it is a disk of the host that the guest was not given").during(STEP, &node.path);
    }
    if !node.by_name {
        return Ok(None);
    }
    let found = stat(&node.path).during(STEP, &node.path)?;
    if FileType::from_raw_mode(found.st_mode) != file_type(node.kind) {
        return Err("it is a device of another kind").during(STEP, &node.path);
    }
    Ok(Some((major(found.st_rdev), minor(found.st_rdev))))
}

/// A detached mount of the guest's node at this path, if it has one.
pub(super) fn open_guest_node(path: &str) -> Option<OwnedFd> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let place = openat(CWD, path, flags, Mode::empty()).ok()?;
    let kind = FileType::from_raw_mode(fstat(&place).ok()?.st_mode);
    matches!(kind, FileType::CharacterDevice | FileType::BlockDevice).then_some(())?;
    clone_tree(place, false).ok()
}

/// The guest's nodes at these paths, each as often as it is named: a container may have one device at several places.
pub(super) fn open_guest_nodes(paths: &[String]) -> BTreeMap<String, Vec<OwnedFd>> {
    let mut nodes: BTreeMap<String, Vec<OwnedFd>> = BTreeMap::new();
    for path in paths {
        nodes.entry(path.clone()).or_default().extend(open_guest_node(path));
    }
    nodes
}

/// Makes one node, or binds the guest's.
pub(super) fn make(root: &Root, node: &DeviceNode, guest: Option<OwnedFd>) -> Result<(), ContainerError> {
    const STEP: &str = "make device";
    let path = node.path.as_str();
    let (parent, name) = root.make_parent_of_target(path).during(STEP, path)?;
    let name = name.as_str();
    let device = makedev(node.major, node.minor);
    match mknodat(&parent, name, file_type(node.kind), Mode::from_raw_mode(node.mode & 0o7777), device) {
        Ok(()) => {
            let place = child(&parent, name).during(STEP, path)?;
            if !is_node(&fstat(&place).during(STEP, path)?, node) {
                return Err("another process has replaced it").during(STEP, path);
            }
            own(&place, node)
        }
        Err(Errno::EXIST) => {
            let found = stat_child(&parent, name).during(STEP, path)?;
            if is_node(&found, node) {
                return Ok(());
            }
            match guest {
                Some(guest) if is_empty_file(&found) => bind(&parent, name, node, guest),
                _ => Err("something else is there").during(STEP, path),
            }
        }
        Err(errno @ (Errno::PERM | Errno::ACCESS | Errno::NOTSUP)) => match guest {
            Some(guest) => {
                let flags = OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                openat(&parent, name, flags, Mode::from_raw_mode(0o644)).during(STEP, path)?;
                bind(&parent, name, node, guest)
            }
            None => Err(errno).during(STEP, path),
        },
        Err(errno) => Err(errno).during(STEP, path),
    }
}

/// By descriptor: in a rootfs that is shared, something else may be in its place meanwhile.
fn own(place: &OwnedFd, node: &DeviceNode) -> Result<(), ContainerError> {
    let (uid, gid) = (Some(Uid::from_raw(node.uid)), Some(Gid::from_raw(node.gid)));
    chownat(place, "", uid, gid, AtFlags::EMPTY_PATH).during("set owner of", &node.path)?;
    // A change of owner drops bits of the mode, and the creation was subject to the umask. The call that takes a place
    // is younger (Linux 6.6) than this way.
    let itself = format!("/proc/self/fd/{}", place.as_raw_fd());
    chmod(&itself, Mode::from_raw_mode(node.mode & 0o7777)).during("set mode of", &node.path)
}

fn bind(parent: &OwnedFd, name: &str, node: &DeviceNode, guest: OwnedFd) -> Result<(), ContainerError> {
    const STEP: &str = "bind device";
    let path = node.path.as_str();
    if !is_node(&fstat(&guest).during(STEP, path)?, node) {
        return Err("the guest's device of this name has other numbers").during(STEP, path);
    }
    let place = child(parent, name).during(STEP, path)?;
    if !is_empty_file(&fstat(&place).during(STEP, path)?) {
        return Err("another process has replaced it").during(STEP, path);
    }
    attach(guest, place).during(STEP, path)
}

/// Makes one link unless something of that name is there; ptmx always, for it must be the container's own.
pub(super) fn link(root: &Root, target: &str, path: &str) -> Result<(), ContainerError> {
    const STEP: &str = "link device";
    let (parent, name) = root.make_parent(path).during(STEP, path)?;
    match symlinkat(target, &parent, name) {
        Err(Errno::EXIST) if name == "ptmx" => {
            unlinkat(&parent, name, AtFlags::empty()).during(STEP, path)?;
            symlinkat(target, &parent, name).during(STEP, path)
        }
        Ok(()) | Err(Errno::EXIST) => Ok(()),
        Err(errno) => Err(errno).during(STEP, path),
    }
}

fn file_type(kind: DeviceKind) -> FileType {
    match kind {
        DeviceKind::Char => FileType::CharacterDevice,
        DeviceKind::Block => FileType::BlockDevice,
        DeviceKind::Fifo => FileType::Fifo,
    }
}

fn is_node(found: &Stat, node: &DeviceNode) -> bool {
    let same_number = (major(found.st_rdev), minor(found.st_rdev)) == (node.major, node.minor);
    FileType::from_raw_mode(found.st_mode) == file_type(node.kind)
        && (node.kind == DeviceKind::Fifo || same_number)
}

fn is_empty_file(found: &Stat) -> bool {
    FileType::from_raw_mode(found.st_mode) == FileType::RegularFile && found.st_size == 0
}

#[cfg(test)]
mod tests;
