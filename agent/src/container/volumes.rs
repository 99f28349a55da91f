//! The volumes of the sandbox, mounted once each for all containers that use them.
//!
//!   share/@3 ─automount─▶ its filesystem ─bind─▶ volumes/0 ─open_tree, in a launcher─▶ container       tmpfs, disk ─▶ volumes/1
//!                                                                          a socket that the agent listens on ─▶ volumes/2
//!
//! A directory of the share is a filesystem of its own, which Linux mounts anew for each mount namespace that walks into it. Two
//! of them are the same files of the host and nothing else: sockets, fifos, locks and pages are those of one. So it is the agent
//! that walks, in its own namespace, of which every launcher gets a copy. A volume is unmounted when its last user lets go.

use std::{
    collections::{BTreeMap, HashMap},
    fs, io,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicU64, Ordering},
    },
};

use bulkhead_protocol::container::{
    ContainerSpec, Disk, Memory, MountSource, SharePath, SocketFile, Volume, VolumeKind,
};
use bulkhead_sys::{chain, mount::Attributes};
use rustix::{
    fs::{Mode, OFlags, fstatfs, open},
    io::Errno,
    mount::{UnmountFlags, unmount},
};
use tokio::{sync::OnceCell, task::spawn_blocking};

use super::{
    detached::{attach, clone_tree, filesystem},
    devices::disk_path,
    error::{Cause, ContainerError, During},
    path::{is_directory, open_beneath},
};
use crate::hotplug::Sysfs;

use crate::host_sockets::{HostSockets, Listening};

/// Of linux/magic.h.
const FUSE_SUPER_MAGIC: u64 = 0x6573_5546;

/// Clones share one table.
#[derive(Debug, Clone)]
pub struct Volumes {
    /// Where they are mounted.
    directory: Arc<Path>,
    table: Arc<Mutex<HashMap<Volume, Weak<Slot>>>>,
    /// Names are not used again: the last user of a volume may let go while the next one mounts it.
    next: Arc<AtomicU64>,
    sockets: HostSockets,
}

/// A volume that is mounted, or about to be.
type Slot = OnceCell<Present>;

/// The volumes of one container. Dropping it, which blocks, unmounts those that nobody else uses.
#[derive(Debug, Default)]
pub struct InUse(HashMap<Volume, Arc<Slot>>);

/// Where each volume of a container is mounted.
pub(super) type Mounts = BTreeMap<String, PathBuf>;

/// A volume at its place; gone when it is dropped.
#[derive(Debug)]
enum Present {
    Mounted(Mounted),
    Socket(Listening),
}

#[derive(Debug)]
struct Mounted {
    point: PathBuf,
    directory: bool,
}

impl Present {
    fn point(&self) -> &Path {
        match self {
            Self::Mounted(mounted) => &mounted.point,
            Self::Socket(listening) => listening.path(),
        }
    }
}

impl Volumes {
    /// They are mounted below `directory`, which is made when it is needed. `sockets` takes the connections to those that are
    /// sockets of the host.
    pub fn below(directory: &Path, sockets: HostSockets) -> Self {
        Self { directory: directory.into(), table: Arc::default(), next: Arc::default(), sockets }
    }

    pub fn sockets(&self) -> &HostSockets {
        &self.sockets
    }

    /// Mounts what the mounts of a container refer to, unless it is mounted already.
    ///
    /// # Errors
    /// The first that cannot be mounted. The others are let go of.
    pub(super) async fn take(&self, share: &Path, spec: &ContainerSpec) -> Result<InUse, ContainerError> {
        let mut taken = InUse::default();
        for volume in wanted(spec) {
            if taken.0.contains_key(volume) {
                continue;
            }
            let slot = self.slot(volume);
            slot.get_or_try_init(|| self.make(share, volume)).await?;
            taken.0.insert(volume.clone(), slot);
        }
        Ok(taken)
    }

    async fn make(&self, share: &Path, volume: &Volume) -> Result<Present, ContainerError> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let point = self.directory.join(number.to_string());
        if let VolumeKind::Socket(file) = volume.kind {
            let listening = self.listen(&point, file, &volume.name);
            return Ok(Present::Socket(
                listening.during("listen on socket of volume", volume.name.as_str())?,
            ));
        }
        let (share, volume) = (share.to_owned(), volume.clone());
        let mounted = spawn_blocking(move || Mounted::make(&share, &volume, point)).await;
        Ok(Present::Mounted(mounted.map_err(io::Error::from).during("mount volume", "")??))
    }

    fn listen(&self, point: &Path, file: SocketFile, volume: &SharePath) -> io::Result<Listening> {
        fs::create_dir_all(&self.directory)?;
        self.sockets.listen(point, file, volume.clone())
    }

    /// What is mounted of the share now, by its name there, and where.
    pub fn of_share(&self) -> Vec<(SharePath, PathBuf)> {
        let slots: Vec<_> = {
            let table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
            let of_share = table.iter().filter(|(volume, _)| volume.kind == VolumeKind::Share);
            of_share.filter_map(|(volume, slot)| Some((volume.name.clone(), slot.upgrade()?))).collect()
        };
        slots.into_iter().filter_map(|(name, slot)| Some((name, slot.get()?.point().to_owned()))).collect()
    }

    fn slot(&self, volume: &Volume) -> Arc<Slot> {
        // Each critical section leaves the table whole.
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        table.retain(|_, slot| slot.strong_count() > 0);
        if let Some(slot) = table.get(volume).and_then(Weak::upgrade) {
            return slot;
        }
        let slot = Arc::<Slot>::default();
        table.insert(volume.clone(), Arc::downgrade(&slot));
        slot
    }
}

/// All volumes that a container's mounts name, some more than once.
fn wanted(spec: &ContainerSpec) -> impl Iterator<Item = &Volume> {
    spec.mounts.iter().flat_map(|mount| {
        let (place, submounts) = match &mount.source {
            MountSource::Bind { place, submounts } => (Some(place), submounts.as_slice()),
            MountSource::Export { .. }
            | MountSource::Filesystem { .. }
            | MountSource::Cgroup
            | MountSource::Remount => (None, [].as_slice()),
        };
        place.into_iter().chain(submounts.iter().map(|submount| &submount.place)).map(|place| &place.volume)
    })
}

impl InUse {
    /// Where they are mounted.
    pub(super) fn mounts(&self) -> Mounts {
        let point = |(volume, slot): (&Volume, &Arc<Slot>)| {
            Some((volume.name.as_str().to_owned(), slot.get()?.point().to_owned()))
        };
        self.0.iter().filter_map(point).collect()
    }

    /// Drops it where that may block.
    pub async fn let_go(self) {
        // A panic there is as good.
        let _ = spawn_blocking(move || drop(self)).await;
    }
}

impl Mounted {
    fn make(share: &Path, volume: &Volume, point: PathBuf) -> Result<Self, ContainerError> {
        const STEP: &str = "mount volume";
        let name = &volume.name;
        let tree = match volume.kind {
            VolumeKind::Share => of_share(share, name).during(STEP, name.as_str())?,
            VolumeKind::Memory(memory) => of_memory(memory).during(STEP, name.as_str())?,
            VolumeKind::Socket(_) => return Err("it is a socket").during(STEP, name.as_str()),
            VolumeKind::Disk(disk) => {
                let kind = disk.filesystem.name();
                let shown = format_args!("{} with its {kind}", name.as_str());
                of_disk(disk, &Sysfs::default()).during(STEP, shown)?
            }
        };
        let directory = is_directory(&tree).during(STEP, name.as_str())?;
        let mounted = Self { point, directory };
        mounted.make_point().during("make mount point of volume", name.as_str())?;
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let place = open(&mounted.point, flags, Mode::empty()).during(STEP, name.as_str())?;
        attach(&tree, place).during(STEP, name.as_str())?;
        Ok(mounted)
    }

    fn make_point(&self) -> io::Result<()> {
        if let Some(parent) = self.point.parent() {
            fs::create_dir_all(parent)?;
        }
        if self.directory { fs::create_dir(&self.point) } else { fs::File::create_new(&self.point).map(drop) }
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let unmounted = unmount(&self.point, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW);
        let removed = if self.directory { fs::remove_dir(&self.point) } else { fs::remove_file(&self.point) };
        if let Err(error) = unmounted.map_err(io::Error::from).and(removed) {
            crate::say!("unmount {}: {error}", self.point.display());
        }
    }
}

/// What the host serves by this name, as a detached mount.
fn of_share(share: &Path, name: &SharePath) -> Result<OwnedFd, Errno> {
    let root = open(share, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    // A directory is a mount that appears only when it is entered, which O_DIRECTORY does and O_PATH alone does not.
    let place = match open_beneath(&root, name.as_str(), OFlags::PATH | OFlags::DIRECTORY) {
        Err(Errno::NOTDIR) => open_beneath(&root, name.as_str(), OFlags::PATH | OFlags::NOFOLLOW),
        place => place,
    }?;
    let tree = clone_tree(&place, false)?;
    Attributes { propagation: libc::MS_PRIVATE, ..Attributes::default() }.apply(&tree)?;
    if is_directory(&tree)? && fstatfs(&tree)?.f_type as u64 == FUSE_SUPER_MAGIC {
        // What has appeared has served its turn.
        let _ = unmount(share.join(name.as_str()), UnmountFlags::DETACH | UnmountFlags::NOFOLLOW);
    }
    Ok(tree)
}

fn of_memory(memory: Memory) -> Result<OwnedFd, Cause> {
    let Memory { bytes, mode, uid, gid } = memory;
    let mut data = vec![format!("mode={mode:o}"), format!("uid={uid}"), format!("gid={gid}")];
    if bytes > 0 {
        data.push(format!("size={bytes}"));
    }
    let data: Vec<&str> = data.iter().map(String::as_str).collect();
    filesystem("tmpfs", "shm", &[], &data)
}

/// The filesystem of a disk, whose kind is the host's word: what is on the disk is the kernel's to like or not.
fn of_disk(disk: Disk, sysfs: &Sysfs) -> Result<OwnedFd, Cause> {
    let found = sysfs.disk(disk.slot.0.into()).map_err(|error| Cause::from(chain(&error)))?;
    let flags: &[&str] = if disk.read_only { &["ro"] } else { &[] };
    filesystem(disk.filesystem.name(), &disk_path(&found), flags, &[])
}
