//! From the guest's tree to the container's: sources are opened first, then the guest's tree goes away.
//!
//!   launcher: private copy of the mounts ─▶ open rootfs, bind sources, devices ─▶ empty staging tmpfs over "/"
//!   process:  attach the rootfs below the staging root ─▶ mounts, devices … ─▶ pivot_root, detach the staging
//!
//! The guest runs from an initramfs, whose root can be neither pivoted nor unmounted: the staging tmpfs on top of
//! it can. Sources are opened by root outside, below the share, without following links; mounts of the share that
//! appear on the way belong to the launcher's mount namespace and go with it. The staging carries a whole procfs
//! and sysfs, without which a user namespace may not mount its own.

use std::{collections::BTreeMap, fs, os::fd::OwnedFd, path::Path};

use bulkhead_protocol::container::{Mount, Propagation, SharePath};
use bulkhead_sys::mount::Attributes;
use rustix::{
    fs::{AtFlags, CWD, Mode, OFlags, StatxFlags, mkdirat, open, statx},
    io::Errno,
    mount::{MountPropagationFlags, UnmountFlags, mount_change, unmount},
    process::{chdir, chroot, fchdir, pivot_root},
};

use super::{
    devices,
    error::{ContainerError, During},
    masked::Cover,
    mounts, namespaces,
    path::{Root, open_beneath},
    plan::{Bind, Outside},
};

/// Where the rootfs is attached before it becomes "/".
const STAGED_ROOT: &str = "/rootfs";
/// The whole procfs of the staging, for sysctl.
pub(super) const STAGED_SYSCTL: &str = "/proc/sys";
/// The whole sysfs of the staging: what a user namespace without its own network gets a copy of.
const STAGED_SYSFS: &str = "/sys";

/// All that comes from the guest's tree, as detached mounts.
#[derive(Debug)]
pub(super) struct Sources {
    pub(super) rootfs: Option<OwnedFd>,
    /// In the order of the plan.
    pub(super) binds: Vec<Option<OwnedFd>>,
    pub(super) mapped: Vec<Option<OwnedFd>>,
    /// Guest devices by path, for where a node cannot be made.
    pub(super) devices: BTreeMap<String, Vec<OwnedFd>>,
    pub(super) cover: Option<Cover>,
    pub(super) cgroup: Option<OwnedFd>,
}

/// Opens the sources and leaves the guest's tree. The launcher calls it once, in the guest's namespaces.
pub(super) fn stage(outside: &Outside) -> Result<Sources, ContainerError> {
    namespaces::unshare(namespaces::MOUNT, "mount")?;
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)
        .during("make mounts private below", "/")?;
    let share = open(&outside.share, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .during("open share", outside.share.display())?;
    let rootfs = open_source(&share, &outside.rootfs, true)?;
    if !super::path::is_directory(&rootfs).during("open rootfs", outside.rootfs.as_str())? {
        return Err(Errno::NOTDIR).during("open rootfs", outside.rootfs.as_str());
    }
    let open_bind = |bind: &Bind| open_source(&share, &bind.path, bind.recursive).map(Some);
    let binds = outside.binds.iter().map(open_bind).collect::<Result<_, _>>()?;
    let mapped = outside.mapped.iter().map(make_mapped).collect::<Result<_, _>>()?;
    let devices = devices::open_guest_nodes(&outside.nodes);
    let null = outside.cover.then(|| devices::open_guest_node(devices::NULL));
    let cgroup = outside.cgroup.as_deref().map(open_cgroup).transpose()?;
    drop(share);
    leave_guest_tree()?;
    Ok(Sources {
        rootfs: Some(rootfs),
        binds,
        mapped,
        devices,
        cover: null.flatten().map(Cover::new),
        cgroup,
    })
}

fn make_mapped(mount: &Mount) -> Result<Option<OwnedFd>, ContainerError> {
    let path = mount.destination.as_str();
    let made = mounts::of_spec(mount, None)?;
    match &mount.id_map {
        Some(map) => mounts::map_ids(&made, map, path)?,
        None => return Err("it has no id map").during("make filesystem for", path),
    }
    Ok(Some(made))
}

fn open_cgroup(path: &Path) -> Result<OwnedFd, ContainerError> {
    const STEP: &str = "open cgroup";
    let place = open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .during(STEP, path.display())?;
    mounts::clone_tree(place, false).during(STEP, path.display())
}

fn open_source(share: &OwnedFd, path: &SharePath, recursive: bool) -> Result<OwnedFd, ContainerError> {
    forget_earlier(share, path);
    // A directory may be a mount of the share that appears only when it is entered, which O_DIRECTORY does and
    // O_PATH alone does not.
    let place = match open_beneath(share, path.as_str(), OFlags::PATH | OFlags::DIRECTORY) {
        Err(Errno::NOTDIR) => open_beneath(share, path.as_str(), OFlags::PATH | OFlags::NOFOLLOW),
        place => place,
    }
    .during("open source in share", path.as_str())?;
    let mount = mounts::clone_tree(&place, recursive).during("clone mount of source", path.as_str())?;
    // Nothing that is mounted in the container later shall appear in another one.
    Attributes { propagation: libc::MS_PRIVATE, recursive: true, ..Attributes::default() }
        .apply(&mount)
        .during("make source private", path.as_str())?;
    Ok(mount)
}

/// A pod may use an id again while the kernel remembers what the share had by that path, which the host has taken away. A
/// question by path, unlike one by descriptor, makes the kernel look again when the host calls the answer stale (ESTALE).
fn forget_earlier(share: &OwnedFd, path: &SharePath) {
    let flags = AtFlags::STATX_FORCE_SYNC | AtFlags::SYMLINK_NOFOLLOW;
    // What is wrong with the path is told by whoever opens it.
    let _ = statx(share, path.as_str(), flags, StatxFlags::TYPE);
}

fn leave_guest_tree() -> Result<(), ContainerError> {
    const STEP: &str = "make staging";
    let staging =
        mounts::filesystem("tmpfs", "staging", &[], &["mode=755", "size=1m"]).during(STEP, "tmpfs")?;
    let procfs = mounts::filesystem("proc", "proc", &[], &[]).during(STEP, "proc")?;
    let sysfs = mounts::filesystem("sysfs", "sysfs", &[], &[]).during(STEP, "sysfs")?;
    for name in ["rootfs", "proc", "sys"] {
        mkdirat(&staging, name, Mode::from_raw_mode(0o755)).during(STEP, name)?;
    }
    let table = fs::read_to_string("/proc/self/mountinfo").during("read mounts of", "/")?;
    for point in top_mount_points(&table) {
        // Best effort: what stays is out of reach below the staging anyway.
        let _ = unmount(point.as_str(), UnmountFlags::DETACH | UnmountFlags::NOFOLLOW);
    }
    let root =
        open("/", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).during(STEP, "/")?;
    mounts::attach(&staging, &root).during(STEP, "/")?;
    fchdir(&staging).during(STEP, "/")?;
    chroot(".").during(STEP, "/")?;
    chdir("/").during(STEP, "/")?;
    for (mount, path) in [(procfs, "/proc"), (sysfs, STAGED_SYSFS)] {
        let place = open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
            .during(STEP, path)?;
        mounts::attach(&mount, &place).during(STEP, path)?;
    }
    Ok(())
}

/// The mount points whose parent is the root mount, last mounted first. `table` is /proc/self/mountinfo (proc(5)):
/// id, parent id, device, root, mount point, …
fn top_mount_points(table: &str) -> Vec<String> {
    let fields = |line: &str| -> Option<(String, String, String)> {
        let mut words = line.split(' ');
        let (id, parent) = (words.next()?, words.next()?);
        Some((id.to_owned(), parent.to_owned(), unescape(words.nth(2)?)))
    };
    let mounts: Vec<_> = table.lines().filter_map(fields).collect();
    let Some((root, _, _)) = mounts.iter().rfind(|(_, _, point)| point == "/") else { return Vec::new() };
    let below = |(_, parent, point): &&(String, String, String)| parent == root && point != "/";
    mounts.iter().rev().filter(below).map(|(_, _, point)| point.clone()).collect()
}

/// mountinfo writes space, tab, newline and backslash as three octal digits.
fn unescape(field: &str) -> String {
    let mut parts = field.split('\\');
    let mut text = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let code = part.get(..3).and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match code {
            Some(code) => {
                text.push(char::from(code));
                text.push_str(&part[3..]);
            }
            None => text.extend(["\\", part]),
        }
    }
    text
}

/// Attaches the rootfs in the staging, private from everything.
pub(super) fn attach(rootfs: OwnedFd) -> Result<Root, ContainerError> {
    let place = open(STAGED_ROOT, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .during("open staging", STAGED_ROOT)?;
    mounts::attach(&rootfs, place).during("mount rootfs on", STAGED_ROOT)?;
    Ok(Root::from(rootfs))
}

/// A copy of the staging's sysfs, for whom the kernel refuses a mount of its own.
pub(super) fn copy_of_sysfs() -> Result<OwnedFd, Errno> {
    let place = open(STAGED_SYSFS, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    mounts::clone_tree(place, true)
}

/// Makes the rootfs the root and lets go of everything else.
pub(super) fn pivot(root: &Root) -> Result<(), ContainerError> {
    const STEP: &str = "pivot into";
    fchdir(root).during(STEP, "rootfs")?;
    // pivot_root(2), "pivot_root(".", ".")": the old root is stacked on the new one, no directory is needed for it.
    pivot_root(".", ".").during(STEP, "rootfs")?;
    unmount(".", UnmountFlags::DETACH).during("detach", "staging")?;
    chdir("/").during(STEP, "rootfs")
}

/// The rootfs mount itself, once everything below it is in place.
pub(super) fn seal(
    root: &Root,
    readonly: bool,
    propagation: Option<Propagation>,
) -> Result<(), ContainerError> {
    if readonly {
        Attributes::read_only().apply(root).during("make read-only", "/")?;
    }
    if let Some(propagation) = propagation {
        mounts::propagation(propagation).apply(root).during("set propagation of", "/")?;
    }
    Ok(())
}

/// Makes the working directory, as root inside, where the image lacks it.
pub(super) fn make_working_directory(root: &Root, path: &str) -> Result<(), ContainerError> {
    root.make_directory(path).during("make working directory", path).map(drop)
}

/// A directory of the staging's procfs.
pub(super) fn open_staged(path: &str) -> Result<OwnedFd, Errno> {
    rustix::fs::openat(CWD, path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
}

#[cfg(test)]
mod tests;
