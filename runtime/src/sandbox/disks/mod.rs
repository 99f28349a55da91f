//! The disks of a sandbox: block devices and files of the host, each in a slot of the VM, for all containers that name it.
//!
//!   HostDisk ─find─▶ one that is there ─▶ used by one container more
//!          └─none─▶ open ─Plug─▶ VMM, slot ─BindSlot─▶ agent           release(container) ─▶ unused: UnbindSlot, Unplug
//!
//! A disk is one device in the guest however many containers name it, so that they share one cache of its pages. Two of the
//! host's users do not: what is written is opened exclusively (`host`). Nothing of a disk is left on the host but the VMM's
//! descriptor, which ends with the device or with the VMM.

mod host;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
};

use bulkhead_protocol::{
    container::{ContainerSpec, Disk, MountSource, Place, SharePath, Volume, VolumeKind},
    id::ContainerId,
    limits,
    vmm::{Device, Fd, Request, Slot},
};
use bulkhead_sys::chain;

pub(crate) use self::host::{HostDisk, Use, look_for};
use self::host::{Identity, OpenError, OpenedDisk};
use super::{
    agent::{Agent, AgentError},
    slots::{self, DISKS},
    vmm::{Vmm, VmmError},
};
use crate::log::note;

#[derive(Debug, thiserror::Error)]
pub(crate) enum DiskError {
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error("give the guest the disk {}: a pod has {DISKS} disks at most", .path.display())]
    TooMany { path: PathBuf },
    #[error(
        "give the guest the disk {} to write: another container of the pod has it read-only",
        .path.display()
    )]
    ReadOnly { path: PathBuf },
    #[error("give the guest the disk {}: another container of the pod {other}", .path.display())]
    Used { path: PathBuf, other: Use },
    #[error("plug the disk {}", .path.display())]
    Plug { path: PathBuf, source: VmmError },
    #[error("bind the disk {} in the guest", .path.display())]
    Bind { path: PathBuf, source: AgentError },
    #[error("open the disk {}: the operation broke off", .path.display())]
    Broken { path: PathBuf, source: tokio::task::JoinError },
}

/// One that is in a slot.
#[derive(Debug)]
struct Known {
    /// `None`: the VMM did not take it back, so its slot is lost.
    identity: Option<Identity>,
    usage: Use,
    writable: bool,
    users: BTreeSet<ContainerId>,
}

/// What is in which of the slots for disks, by number.
#[derive(Debug, Default)]
pub(crate) struct Disks(BTreeMap<u8, Known>);

impl Disks {
    /// Gives the guest the disks of a container, and says in its spec where they are. After an error it has some of them, which it is
    /// to be released from.
    ///
    /// # Errors
    /// When one cannot be had as it is wanted.
    pub(crate) async fn attach(
        &mut self,
        (vmm, agent): (&Vmm, &Agent),
        container: &ContainerId,
        sought: Vec<HostDisk>,
        spec: &mut ContainerSpec,
    ) -> Result<(), DiskError> {
        for sought in sought {
            let (name, usage, numbers) = (sought.name.clone(), sought.usage, sought.numbers());
            let (slot, writable) = self.attach_one((vmm, agent), container, sought).await?;
            match (usage, name) {
                (Use::Filesystem(filesystem), Some(name)) => {
                    let disk = Disk { slot, filesystem, read_only: !writable };
                    mount_from(spec, &name, disk);
                }
                (Use::Filesystem(_) | Use::Raw, _) => {
                    let nodes = spec.devices.iter_mut();
                    for node in nodes.filter(|node| numbers == host::numbers_of(node)) {
                        node.disk = Some(slot);
                    }
                }
            }
        }
        Ok(())
    }

    /// The slot of a disk, and whether the guest may write to it.
    async fn attach_one(
        &mut self,
        (vmm, agent): (&Vmm, &Agent),
        container: &ContainerId,
        sought: HostDisk,
    ) -> Result<(Slot, bool), DiskError> {
        let HostDisk { ref path, usage, writable, identity, .. } = sought;
        if let Some((&number, known)) = self.0.iter_mut().find(|(_, known)| known.identity == Some(identity))
        {
            let path = path.clone();
            if known.usage != usage {
                return Err(DiskError::Used { path, other: known.usage });
            }
            if writable && !known.writable {
                return Err(DiskError::ReadOnly { path });
            }
            known.users.insert(container.clone());
            let slot = slots::disk(number).ok_or(DiskError::TooMany { path: sought.path })?;
            return Ok((slot, known.writable));
        }
        let free = (0..DISKS).find(|number| !self.0.contains_key(number));
        let (number, slot) = free
            .and_then(|number| Some((number, slots::disk(number)?)))
            .ok_or_else(|| DiskError::TooMany { path: path.clone() })?;
        let path = path.clone();
        // A device may be slow to answer.
        let opened = tokio::task::spawn_blocking(move || sought.open()).await;
        let opened = opened.map_err(|source| DiskError::Broken { path: path.clone(), source })??;
        plug(vmm, slot, opened, writable)
            .await
            .map_err(|source| DiskError::Plug { path: path.clone(), source })?;
        let users = BTreeSet::from([container.clone()]);
        self.0.insert(number, Known { identity: Some(identity), usage, writable, users });
        // After an error it is known, and the container is released from it.
        agent.bind_slot(slot).await.map_err(|source| DiskError::Bind { path, source })?;
        Ok((slot, writable))
    }

    /// Takes from the guest what a container alone has used. `agent` is `None` when the guest is no more.
    pub(crate) async fn release(&mut self, vmm: &Vmm, agent: Option<&Agent>, container: &ContainerId) {
        for known in self.0.values_mut() {
            known.users.remove(container);
        }
        let unused = self.0.extract_if(.., |_, known| known.users.is_empty() && known.identity.is_some());
        let unused: Vec<_> = unused.collect();
        let Some(agent) = agent else { return };
        for (number, mut known) in unused {
            let Some(slot) = slots::disk(number) else { continue };
            // What the guest does not let go of is taken all the same.
            if let Err(error) = agent.unbind_slot(slot).await {
                note(&format!("unbind a disk of {container} in the guest: {}", chain(&error)));
            }
            if let Err(error) = vmm.call(Request::Unplug { slot }, Vec::new(), limits::CONTROL).await {
                note(&format!("unplug a disk of {container}: {}", chain(&error)));
                known.identity = None;
                self.0.insert(number, known);
            }
        }
    }

    /// The containers that use one.
    pub(crate) fn users(&self) -> BTreeSet<ContainerId> {
        self.0.values().flat_map(|known| known.users.iter().cloned()).collect()
    }
}

async fn plug(vmm: &Vmm, slot: Slot, disk: OpenedDisk, writable: bool) -> Result<(), VmmError> {
    let OpenedDisk { file, sectors, block_size } = disk;
    let serial = format!("bulkhead-{}", slot.0);
    let device = Device::Blk { file: Fd(0), sectors, block_size, read_only: !writable, serial };
    vmm.call(Request::Plug { slot, device }, vec![file], limits::CONTROL).await.map(drop)
}

/// Has the mount of this name be of a disk of the guest.
fn mount_from(spec: &mut ContainerSpec, name: &SharePath, disk: Disk) {
    let volume = Volume { name: SharePath::of_disk(disk.slot), kind: VolumeKind::Disk(disk) };
    let attributes = if disk.read_only { libc::MOUNT_ATTR_RDONLY } else { 0 };
    for mount in spec.mounts.iter_mut().filter(|mount| mount.source.is_export(name)) {
        let place = Place { volume: volume.clone(), path: None, attributes };
        mount.source = MountSource::Bind { place, submounts: Vec::new() };
    }
}

#[cfg(test)]
mod tests;
