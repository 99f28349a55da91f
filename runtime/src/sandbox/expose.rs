//! Shows a container's rootfs and volumes to the guest, as the caller of its `create` sees them.
//!
//!   open: in the caller's mount namespace, while the guest boots ─▶ Files      place: in the jail's ─▶ the spec for the guest
//!
//! Engines keep a rootfs on a mount that is private, podman and docker both do: what a caller has mounted since the server was
//! made does not arrive in the server's own mount namespace. A container's exports are opened in that of its proxy.

use std::{borrow::Cow, collections::HashMap, io, os::fd::OwnedFd};

use bulkhead_protocol::{
    container::{ContainerSpec, IdMap, MountSource, Place, SharePath, Submount, VolumeKind},
    id::ContainerId,
};
use bulkhead_sys::{mount::Attributes, namespace::visit_mounts_of};
use rustix::io::Errno;

use super::{
    agent::Agent,
    disks::{DiskError, Disks, HostDisk, look_for},
    host_sockets::HostSockets,
    mount_points::{self, MountPointError},
    share::{Jail, Share, ShareError, map_ids},
    source::{self, Content, Opened, Source, SourceError, open_export},
    vmm::Vmm,
    volumes::{Match, Volumes, Wanted, depth},
};
use crate::spec::{DiskMount, Export};

#[derive(Debug, thiserror::Error)]
pub(crate) enum ExposeError {
    #[error("look into the caller's mount namespace")]
    Caller { source: io::Error },
    #[error("look for the VMM's process")]
    Vmm { source: io::Error },
    #[error(transparent)]
    MountPoint(#[from] MountPointError),
    #[error(transparent)]
    Source(#[from] SourceError),
    #[error(transparent)]
    Share(#[from] ShareError),
    #[error(transparent)]
    Disk(#[from] DiskError),
}

/// What a container has of the host: its rootfs is in the share already, its volumes are open and wait, and so do its disks.
#[derive(Debug)]
pub(crate) struct Files<'p> {
    /// In which a read-only rootfs has all mount points.
    guest: Cow<'p, ContainerSpec>,
    opened: Vec<Opened>,
    disks: Vec<HostDisk>,
    /// What is left out, for the user.
    pub(crate) warnings: Vec<String>,
}

/// A read-only rootfs has the working directory as well. `exports` has the rootfs first. `caller` is the pidfd of a process with the
/// mounts of who creates the container; `None` has this process's own.
///
/// # Errors
/// When something cannot be opened.
pub(crate) fn open<'p>(
    share: &Share,
    exports: &[Export],
    disks: &[DiskMount],
    guest: &'p ContainerSpec,
    caller: Option<&OwnedFd>,
) -> Result<Files<'p>, ExposeError> {
    let Some((rootfs, volumes)) = exports.split_first() else {
        let guest = Cow::Borrowed(guest);
        return Ok(Files { guest, opened: Vec::new(), disks: Vec::new(), warnings: Vec::new() });
    };
    let open = || -> Result<_, ExposeError> {
        let disks = look_for(disks, guest).map_err(DiskError::from)?;
        let mut guest = Cow::Borrowed(guest);
        if rootfs.read_only {
            let guest = guest.to_mut();
            mount_points::make(&rootfs.source, &mut guest.mounts, exports)?;
            mount_points::make_working_directory(&rootfs.source, &guest.process.cwd, &guest.mounts)?;
        }
        let failed = |errno: Errno| ShareError::Export { path: rootfs.source.clone(), source: errno.into() };
        let tree = open_export(rootfs).map_err(failed)?;
        let mut warnings = Vec::new();
        let opened = source::open_all(volumes, &mut warnings)?;
        Ok((tree, Files { guest, opened, disks, warnings }))
    };
    let (tree, files) = match caller {
        None => open(),
        Some(pidfd) => visit_mounts_of(pidfd, open).map_err(|source| ExposeError::Caller { source })?,
    }?;
    share.add(rootfs, &tree)?;
    Ok(files)
}

impl<'p> Files<'p> {
    /// Nothing is to be mounted for them.
    pub(crate) fn are_placed(&self) -> bool {
        self.opened.is_empty()
    }

    /// Gives the guest the disks, and says in the spec where they are. After an error the container has some, which it is to be
    /// released from.
    ///
    /// # Errors
    /// As `Disks::attach`.
    pub(crate) async fn attach(
        &mut self,
        disks: &mut Disks,
        guest: (&Vmm, &Agent),
        container: &ContainerId,
    ) -> Result<(), DiskError> {
        let sought = std::mem::take(&mut self.disks);
        if sought.is_empty() {
            return Ok(());
        }
        disks.attach(guest, container, sought, self.guest.to_mut()).await
    }

    /// The spec for the guest, of files that are placed.
    pub(crate) fn into_spec(self) -> Cow<'p, ContainerSpec> {
        self.guest
    }

    /// Finds or makes a volume for each source, in the container's name, and says in the spec where they are. `vmm` is the pidfd of
    /// the VMM. After an error the container has some volumes, which it is to be released from.
    ///
    /// # Errors
    /// When something cannot be mounted.
    pub(crate) fn place(
        &mut self,
        share: &Share,
        volumes: &mut Volumes,
        sockets: &HostSockets,
        vmm: &OwnedFd,
        container: &ContainerId,
    ) -> Result<(), ShareError> {
        let mut sources: Vec<_> = self.opened.iter().flat_map(Sought::all).collect();
        sources.sort_by_key(|sought| depth(&sought.source.identity));
        for sought in &sources {
            if let Some(map) = sought.id_map {
                map_ids(&sought.source.path, &sought.source.tree, map)?;
            }
        }
        let warnings = &mut self.warnings;
        let mut places = share.in_jail(vmm, |jail| {
            let place = |sought: &Sought<'_>| {
                let place = sought.place(&jail, volumes, sockets, container, warnings)?;
                Ok(((sought.export.clone(), sought.below.cloned()), place))
            };
            sources.iter().map(place).collect::<Result<HashMap<_, _>, ShareError>>()
        })?;
        for mount in &mut self.guest.to_mut().mounts {
            let MountSource::Export { name } = &mount.source else { continue };
            let Some(opened) = self.opened.iter().find(|opened| opened.export.share == *name) else {
                continue;
            };
            let Some(place) = places.remove(&(name.clone(), None)) else { continue };
            let submounts = opened.below.iter().filter_map(|(below, _)| {
                let place = places.remove(&(name.clone(), Some(below.clone())))?;
                Some(Submount { below: below.clone(), place })
            });
            mount.source = MountSource::Bind { place, submounts: submounts.collect() };
        }
        self.opened.clear();
        Ok(())
    }
}

/// A source and how the container wants it.
struct Sought<'opened> {
    /// The export that it belongs to, and its place below.
    export: SharePath,
    below: Option<&'opened SharePath>,
    source: &'opened Source,
    id_map: Option<&'opened IdMap>,
    writable: bool,
    /// `MOUNT_ATTR_*` bits that it has in the guest until the spec says otherwise.
    attributes: u64,
}

impl<'opened> Sought<'opened> {
    fn all(opened: &'opened Opened) -> impl Iterator<Item = Self> {
        let Opened { export, source, below } = opened;
        let sought = |below: Option<_>, source: &'opened Source, id_map, read_only: bool| Sought {
            export: export.share.clone(),
            below,
            source,
            id_map,
            writable: !read_only && source.attributes & libc::MOUNT_ATTR_RDONLY == 0,
            // crun takes all but the spec's from the mount itself. What is below it stays as it is on the host.
            attributes: source.attributes & if below.is_some() { u64::MAX } else { libc::MOUNT_ATTR_RDONLY },
        };
        let deep_map = export.id_map.as_ref().filter(|map| map.recursive);
        let submounts = below
            .iter()
            .map(move |(below, source)| sought(Some(below), source, deep_map, export.read_only_recursive));
        [sought(None, source, export.id_map.as_ref(), export.read_only)].into_iter().chain(submounts)
    }

    fn wanted(&self) -> Wanted<'opened> {
        Wanted {
            identity: &self.source.identity,
            path: &self.source.path,
            directory: self.source.directory,
            id_map: self.id_map,
            writable: self.writable,
            kind: match self.source.content {
                Content::Files => VolumeKind::Share,
                Content::Memory(memory) => VolumeKind::Memory(memory),
                Content::Socket(file) => VolumeKind::Socket(file),
            },
        }
    }

    fn place(
        &self,
        jail: &Jail<'_>,
        volumes: &mut Volumes,
        sockets: &HostSockets,
        container: &ContainerId,
        warnings: &mut Vec<String>,
    ) -> Result<Place, ShareError> {
        let wanted = self.wanted();
        let failed =
            |errno: Errno| ShareError::Export { path: self.source.path.clone(), source: errno.into() };
        // The names of the host may have moved since the other container was made.
        let leads_here = |found: &Match| match &found.path {
            Some(path) => jail.leads_to(&found.id.name(), path, self.source.identity.object),
            None => true,
        };
        let attributes = self.attributes;
        if let Some(found) = volumes.find(&wanted).into_iter().find(leads_here) {
            let volume = volumes.volume(found.id);
            if found.upgrade && volume.kind == VolumeKind::Share {
                jail.make_writable(&volume.name).map_err(failed)?;
            }
            volumes.join(&found, container);
            return Ok(Place { volume, path: found.path, attributes });
        }
        if let Some(other) = volumes.apart(&wanted) {
            let (this, other) = (self.source.path.display(), other.display());
            warnings.push(format!(
                "{this} and {other} are apart in this pod: unix sockets, fifos, locks, mappings and watches of files reach no \
                 further than one of them"
            ));
        }
        let id = volumes.add(&wanted, container);
        let volume = volumes.volume(id);
        match volume.kind {
            VolumeKind::Share => {
                if !self.writable {
                    Attributes::read_only().apply(&self.source.tree).map_err(failed)?;
                }
                jail.add(&volume.name, &self.source.tree, self.source.directory).map_err(failed)?;
            }
            VolumeKind::Socket(_) => {
                let path = self.source.path.clone();
                let socket = self.source.tree.try_clone();
                let socket = socket.map_err(|source| ShareError::Export { path, source })?;
                sockets.add(volume.name.clone(), socket);
            }
            // The agent makes a tmpfs, and `disks` has the disks.
            VolumeKind::Memory(_) | VolumeKind::Disk(_) => {}
        }
        Ok(Place { volume, path: None, attributes })
    }
}
