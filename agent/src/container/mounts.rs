//! The mounts of a specification: what is mounted, with which attributes, and on which place of the rootfs.

use std::os::fd::OwnedFd;

use bulkhead_protocol::container::{IdMap, Mount, MountSource, SharePath};
use bulkhead_sys::{mount::Attributes, user_namespace::with_maps};
use rustix::{
    fs::{AtFlags, OFlags, StatxAttributes, StatxFlags, fstat, fstatfs, statx},
    io::Errno,
};

use super::{
    detached::{attach, filesystem, propagation},
    error::{Cause, ContainerError, During},
    namespaces,
    path::{Root, make_child_directory, open_beneath},
    staging,
};

/// MOUNT_ATTR_RDONLY of linux/mount.h.
pub(super) const READ_ONLY: u64 = 0x1;
/// PROC_SUPER_MAGIC of linux/magic.h.
const PROC_SUPER_MAGIC: u64 = 0x9fa0;

/// Files of procfs that may be replaced by a bind mount, as lxcfs does.
const PROC_FILES: [&str; 10] = [
    "cpuinfo",
    "diskstats",
    "meminfo",
    "stat",
    "swaps",
    "uptime",
    "loadavg",
    "slabinfo",
    "net/dev",
    "sys/kernel/ns_last_pid",
];

/// Gives a detached mount an id map; `path` names it in an error. Once it was attached, the kernel refuses.
pub(super) fn map_ids(mount: &OwnedFd, map: &IdMap, path: &str) -> Result<(), ContainerError> {
    let (uids, gids) = (namespaces::mappings(&map.uids), namespaces::mappings(&map.gids));
    let namespace = with_maps(&uids, &gids).during("make user namespace for mount", path)?;
    bulkhead_sys::mount::map_ids(mount, &namespace, map.recursive).during("map ids of mount", path)
}

/// Attributes of a mount that wait until devices and mount points were made in it: a tmpfs starts empty.
pub(super) fn late_attributes(mount: &Mount) -> u64 {
    if mount.source.is_tmpfs() { READ_ONLY } else { 0 }
}

/// The filesystem that `mount` asks for, detached; `mode` is that of its place in the image.
pub(super) fn of_spec(mount: &Mount, mode: Option<u32>) -> Result<OwnedFd, ContainerError> {
    let MountSource::Filesystem { kind, source } = &mount.source else {
        return Err("its source is no filesystem").during("mount on", &mount.destination);
    };
    let late = late_attributes(mount);
    let flags: Vec<&str> =
        mount.super_flags.iter().map(String::as_str).filter(|flag| late == 0 || *flag != "ro").collect();
    // In front: a mode that was asked for comes later and counts.
    let mode = mode.map(|mode| format!("mode={mode:o}"));
    let data: Vec<&str> = mode.as_deref().into_iter().chain(mount.data.iter().map(String::as_str)).collect();
    let made = match filesystem(kind, source, &flags, &data) {
        // A user namespace that shares the sandbox's network may not mount a sysfs of its own.
        Err(Cause { errno: Some(libc::EPERM), .. }) if kind == "sysfs" => {
            staging::copy_of_sysfs().map_err(Cause::from)
        }
        made => made,
    };
    made.during("mount", format_args!("{kind} on {}", mount.destination))
}

/// The place that `mount` goes to, made where missing: a file for a file, else a directory.
pub(super) fn destination(root: &Root, mount: &Mount, file: bool) -> Result<OwnedFd, ContainerError> {
    let path = mount.destination.as_str();
    let kind = match &mount.source {
        MountSource::Filesystem { kind, .. } => kind.as_str(),
        MountSource::Export { .. }
        | MountSource::Bind { .. }
        | MountSource::Cgroup
        | MountSource::Remount => "",
    };
    let place = match kind {
        "proc" | "sysfs" => ordinary_directory(root, path)?,
        _ if file => root.make_file(path).during("make mount point", path)?,
        _ => root.make_directory(path).during("make mount point", path)?,
    };
    let same = |a: &rustix::fs::Stat, b: &rustix::fs::Stat| (a.st_dev, a.st_ino) == (b.st_dev, b.st_ino);
    let (found, top) = (fstat(&place), fstat(root));
    if same(&found.during("look at mount point", path)?, &top.during("look at", "/")?) {
        // It would hide all that was mounted before, and escape what is done to the root later.
        return Err("a mount cannot cover the rootfs itself").during("make mount point", path);
    }
    Ok(place)
}

/// The directory of the image that a tmpfs covers, with its mode, which the tmpfs takes over.
pub(super) fn directory_of_image(
    root: &Root,
    mount: &Mount,
) -> Result<Option<(OwnedFd, u32)>, ContainerError> {
    const STEP: &str = "look at mount point";
    if !mount.source.is_tmpfs() {
        return Ok(None);
    }
    let path = mount.destination.as_str();
    match root.open(path, OFlags::PATH | OFlags::DIRECTORY) {
        Err(Errno::NOENT) => Ok(None),
        Err(errno) => Err(errno).during(STEP, path),
        Ok(directory) => {
            let mode = fstat(&directory).during(STEP, path)?.st_mode & 0o7777;
            Ok(Some((directory, mode)))
        }
    }
}

/// The place for procfs or sysfs, made where missing: an ordinary directory only, as their masked and read-only paths are
/// given by name, and a link there would leave the real files open.
pub(super) fn ordinary_directory(root: &Root, path: &str) -> Result<OwnedFd, ContainerError> {
    const STEP: &str = "check mount point";
    let (parent, name) = root.make_parent(path).during(STEP, path)?;
    let there = match open_beneath(&parent, name, OFlags::PATH | OFlags::DIRECTORY) {
        Err(Errno::NOENT) => make_child_directory(&parent, name),
        there => there,
    };
    match there {
        Err(Errno::LOOP | Errno::NOTDIR) => Err("not an ordinary directory").during(STEP, path),
        there => there.during(STEP, path),
    }
}

/// A bind mount must not replace procfs or hide what its masks protect.
pub(super) fn outside_procfs(place: &OwnedFd, path: &str) -> Result<(), ContainerError> {
    const STEP: &str = "check mount point";
    let filesystem = fstatfs(place).during(STEP, path)?;
    let name = path.trim_start_matches('/').strip_prefix("proc/").unwrap_or("");
    if filesystem.f_type as u64 != PROC_SUPER_MAGIC || PROC_FILES.contains(&name) {
        return Ok(());
    }
    Err("a bind mount inside proc is not allowed").during(STEP, path)
}

/// What is mounted at the destination; a place below a mount is not one.
pub(super) fn mounted_at(root: &Root, path: &str) -> Result<OwnedFd, ContainerError> {
    const STEP: &str = "remount";
    let place = root.place(path).during(STEP, path)?;
    let found = statx(&place, "", AtFlags::EMPTY_PATH, StatxFlags::empty()).during(STEP, path)?;
    if found.stx_attributes.contains(StatxAttributes::MOUNT_ROOT) {
        return Ok(place);
    }
    Err("nothing is mounted there").during(STEP, path)
}

/// Mounts what lies below a bind at its place there. It has the attributes that it has on the host, and those that the
/// specification wants of all mounts below. `bind` is attached already: a place in a detached mount is none.
pub(super) fn attach_below(
    bind: &OwnedFd,
    below: &SharePath,
    submount: &OwnedFd,
    mount: &Mount,
) -> Result<(), ContainerError> {
    let path = format!("{}/{}", mount.destination.trim_end_matches('/'), below.as_str());
    let place = open_beneath(bind, below.as_str(), OFlags::PATH).during("find mount point", &path)?;
    recursive_attributes(mount, 0).apply(submount).during("set attributes of mount", &path)?;
    if let Some(wanted) = mount.propagation.filter(|wanted| wanted.recursive) {
        propagation(wanted).apply(submount).during("set propagation of mount", &path)?;
    }
    attach(submount, &place).during("bind mount on", &path)
}

/// Those of the mount and of all below it.
fn recursive_attributes(mount: &Mount, later: u64) -> Attributes {
    Attributes {
        set: mount.recursive_set & !later,
        clear: mount.recursive_clear,
        recursive: true,
        ..Attributes::default()
    }
}

/// Sets what the specification wants of a mount, all but what `seal` does later.
pub(super) fn set_attributes(fd: &OwnedFd, mount: &Mount, later: u64) -> Result<(), ContainerError> {
    const STEP: &str = "set attributes of mount";
    let path = mount.destination.as_str();
    let own = Attributes { set: mount.set & !later, clear: mount.clear, ..Attributes::default() };
    own.apply(fd).during(STEP, path)?;
    recursive_attributes(mount, later).apply(fd).during(STEP, path)?;
    if let Some(wanted) = mount.propagation {
        propagation(wanted).apply(fd).during("set propagation of mount", path)?;
    }
    Ok(())
}
