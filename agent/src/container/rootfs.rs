//! From the guest's tree to the container's: sources are opened first, then the guest's tree goes away.
//!
//!   launcher: private copy of the mounts ─▶ open rootfs, bind sources, devices ─▶ `staging`
//!   process:  attach the rootfs in the staging ─▶ mounts, devices … ─▶ pivot_root, detach the staging
//!
//! Sources are opened by root outside, below the share, without following links; mounts of the share that appear on the
//! way belong to the launcher's mount namespace and go with it.

use std::{collections::BTreeMap, mem::MaybeUninit, os::fd::OwnedFd, path::Path};

use bulkhead_protocol::container::{Mount, Propagation, SharePath};
use bulkhead_sys::mount::Attributes;
use rustix::{
    fs::{AtFlags, Mode, OFlags, RawDir, StatxFlags, open, openat, statx},
    io::Errno,
    mount::{MountPropagationFlags, UnmountFlags, mount_change, unmount},
    process::{chdir, fchdir, pivot_root},
};

use super::{
    detached::{attach, clone_tree, propagation},
    devices,
    error::{ContainerError, During},
    masked::Cover,
    mounts, namespaces,
    path::{Root, open_beneath},
    plan::{Bind, Outside},
    staging,
};

/// Bytes of directory entries that are asked for ahead: some hundred of them.
const ENTRIES: usize = 4096;

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
    let rootfs = open_rootfs(&share, &outside.rootfs)?;
    look_ahead(&rootfs);
    let open_bind = |bind: &Bind| open_bind(bind).map(Some);
    let binds = outside.binds.iter().map(open_bind).collect::<Result<_, _>>()?;
    let mapped = outside.mapped.iter().map(make_mapped).collect::<Result<_, _>>()?;
    let devices = devices::open_guest_nodes(&outside.nodes);
    let null = outside.cover.then(|| devices::open_guest_node(devices::NULL));
    let cgroup = outside.cgroup.as_deref().map(open_cgroup).transpose()?;
    drop(share);
    staging::enter()?;
    Ok(Sources {
        rootfs: Some(rootfs),
        binds,
        mapped,
        devices,
        cover: null.flatten().map(Cover::new),
        cgroup,
    })
}

/// Has the kernel ask for the first entries of the rootfs all at once: mount points, `bin`, `usr` and `etc` are among them, and
/// each would be a question of its own to the host (FUSE_READDIRPLUS instead of FUSE_LOOKUP).
fn look_ahead(rootfs: &OwnedFd) {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    // What cannot be read is asked for later.
    if let Ok(directory) = openat(rootfs, ".", flags, Mode::empty()) {
        let mut buffer = [MaybeUninit::uninit(); ENTRIES];
        let _ = RawDir::new(directory, &mut buffer).next();
    }
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
    clone_tree(place, false).during(STEP, path.display())
}

fn open_rootfs(share: &OwnedFd, path: &SharePath) -> Result<OwnedFd, ContainerError> {
    forget_earlier(share, path);
    // It is a mount of the share, which appears only when it is entered: O_DIRECTORY does that, and O_PATH alone does not.
    let place = open_beneath(share, path.as_str(), OFlags::PATH | OFlags::DIRECTORY)
        .during("open rootfs", path.as_str())?;
    let mount = clone_tree(&place, true).during("clone mount of rootfs", path.as_str())?;
    private(&mount).during("make rootfs private", path.as_str())?;
    Ok(mount)
}

/// A detached mount of what a bind is of, with the attributes that it has on the host. No link is followed on the way.
fn open_bind(bind: &Bind) -> Result<OwnedFd, ContainerError> {
    let shown = bind.path.as_ref().map_or("", SharePath::as_str);
    let volume = open(&bind.volume, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
        .during("open volume", bind.volume.display())?;
    let place = match &bind.path {
        None => volume,
        // A directory may be a filesystem of its own, which appears only when it is entered.
        Some(path) => match open_beneath(&volume, path.as_str(), OFlags::PATH | OFlags::DIRECTORY) {
            Err(Errno::NOTDIR) => open_beneath(&volume, path.as_str(), OFlags::PATH | OFlags::NOFOLLOW),
            place => place,
        }
        .during("open in volume", shown)?,
    };
    let mount = clone_tree(&place, false).during("clone mount of volume", shown)?;
    private(&mount).during("make volume private", shown)?;
    let attributes = Attributes { set: bind.attributes, ..Attributes::default() };
    attributes.apply(&mount).during("set attributes of volume", shown)?;
    Ok(mount)
}

/// Nothing that is mounted in the container later shall appear in another one.
fn private(mount: &OwnedFd) -> Result<(), Errno> {
    Attributes { propagation: libc::MS_PRIVATE, recursive: true, ..Attributes::default() }.apply(mount)
}

/// A pod may use an id again while the kernel remembers what the share had by that path, which the host has taken away. A
/// question by path, unlike one by descriptor, makes the kernel look again when the host calls the answer stale (ESTALE).
fn forget_earlier(share: &OwnedFd, path: &SharePath) {
    let flags = AtFlags::STATX_FORCE_SYNC | AtFlags::SYMLINK_NOFOLLOW;
    // What is wrong with the path is told by whoever opens it.
    let _ = statx(share, path.as_str(), flags, StatxFlags::TYPE);
}

/// Attaches the rootfs in the staging, private from everything.
pub(super) fn attach_rootfs(rootfs: OwnedFd) -> Result<Root, ContainerError> {
    let place = open(staging::ROOT, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .during("open staging", staging::ROOT)?;
    attach(&rootfs, place).during("mount rootfs on", staging::ROOT)?;
    Ok(Root::from(rootfs))
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
pub(super) fn seal(root: &Root, readonly: bool, wanted: Option<Propagation>) -> Result<(), ContainerError> {
    if readonly {
        Attributes::read_only().apply(root).during("make read-only", "/")?;
    }
    if let Some(wanted) = wanted {
        propagation(wanted).apply(root).during("set propagation of", "/")?;
    }
    Ok(())
}

/// Makes the working directory, as root inside, where the image lacks it.
pub(super) fn make_working_directory(root: &Root, path: &str) -> Result<(), ContainerError> {
    root.make_directory(path).during("make working directory", path).map(drop)
}
