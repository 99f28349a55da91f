//! The volumes of a sandbox: what the guest has of the host beside the rootfs of each container, and who uses it.
//!
//!   Wanted ─find─▶ a volume that is the source, or has it inside ─join─▶ used by one container more
//!          └─none─▶ add ─▶ a new volume                     release(container) ─▶ those that nobody uses any more
//!
//! A source has one volume, however many containers name it, so that the guest has one filesystem for it. A source inside of
//! another one, in the same filesystem, is a path in the volume of that. The other order does not work: a volume that is there
//! cannot become part of a wider one. Nor does a path in a read-only volume become writable: the guest would get to write to all
//! of it. Such two are apart, and `apart` says so.
//!
//! Pure: nothing is mounted here, and whether a path still leads to what it did when it was found is the caller's to check.

use std::{
    collections::{BTreeMap, BTreeSet},
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
};

use bulkhead_protocol::{
    container::{IdMap, SharePath, Volume, VolumeKind},
    id::ContainerId,
};

use super::source::Identity;

/// A volume by its number in the sandbox, which is never used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct VolumeId(u64);

impl VolumeId {
    /// Its place in the share.
    pub(crate) fn name(self) -> SharePath {
        SharePath::of_volume(self.0)
    }
}

/// What a container asks for.
#[derive(Debug, Clone)]
pub(crate) struct Wanted<'source> {
    pub(crate) identity: &'source Identity,
    /// As the host's user knows it.
    pub(crate) path: &'source Path,
    pub(crate) directory: bool,
    pub(crate) id_map: Option<&'source IdMap>,
    pub(crate) writable: bool,
    /// What kind of volume it becomes if there is none for it.
    pub(crate) kind: VolumeKind,
}

/// Where a source may be found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Match {
    pub(crate) id: VolumeId,
    /// Below its root; `None`: it is the volume itself.
    pub(crate) path: Option<SharePath>,
    /// The volume must become writable for it.
    pub(crate) upgrade: bool,
}

/// One that nobody uses any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Released {
    pub(crate) id: VolumeId,
    pub(crate) directory: bool,
    pub(crate) kind: VolumeKind,
}

#[derive(Debug)]
struct Known {
    identity: Identity,
    path: PathBuf,
    directory: bool,
    id_map: Option<IdMap>,
    writable: bool,
    kind: VolumeKind,
    users: BTreeSet<ContainerId>,
}

impl Known {
    /// In the same filesystem, with owners that are seen alike.
    fn is_beside(&self, wanted: &Wanted<'_>) -> bool {
        let maps = |map: &IdMap| (map.uids.clone(), map.gids.clone());
        self.identity.filesystem == wanted.identity.filesystem
            && self.id_map.as_ref().map(maps) == wanted.id_map.map(maps)
    }

    fn is(&self, wanted: &Wanted<'_>) -> bool {
        self.is_beside(wanted) && self.identity.object == wanted.identity.object
    }

    /// The path of the wanted one below this one, when it is inside by the paths.
    fn path_to(&self, wanted: &Wanted<'_>) -> Option<SharePath> {
        let (outer, inner) = (self.identity.path.as_ref()?, wanted.identity.path.as_ref()?);
        let below = inner.strip_prefix(outer).ok().filter(|_| self.directory && self.is_served())?;
        SharePath::try_from(below.to_str()?.to_owned()).ok()
    }

    /// This one is inside of the wanted one, by the paths.
    fn is_inside(&self, wanted: &Wanted<'_>) -> bool {
        let (Some(inner), Some(outer)) = (&self.identity.path, &wanted.identity.path) else { return false };
        self.is_served() && inner != outer && inner.starts_with(outer)
    }

    fn is_served(&self) -> bool {
        self.kind == VolumeKind::Share
    }
}

#[derive(Debug, Default)]
pub(crate) struct Volumes {
    known: BTreeMap<VolumeId, Known>,
    next: u64,
}

impl Volumes {
    /// Where the source may be: the volume that is the same object, or else those that it is inside of, the narrowest first.
    pub(crate) fn find(&self, wanted: &Wanted<'_>) -> Vec<Match> {
        if let Some((id, known)) = self.known.iter().find(|(_, known)| known.is(wanted)) {
            return vec![Match { id: *id, path: None, upgrade: wanted.writable && !known.writable }];
        }
        if matches!(wanted.kind, VolumeKind::Socket(_)) {
            // Nobody answers a socket in a directory of the host's.
            return Vec::new();
        }
        let around = self
            .known
            .iter()
            .filter(|(_, known)| known.is_beside(wanted) && (known.writable || !wanted.writable));
        let mut around: Vec<_> =
            around.filter_map(|(id, known)| Some((*id, known.path_to(wanted)?))).collect();
        around.sort_by_key(|(_, path)| path.as_str().len());
        around.into_iter().map(|(id, path)| Match { id, path: Some(path), upgrade: false }).collect()
    }

    /// The host's path of a volume that has files of the wanted one, or has it inside, and yet is not it.
    pub(crate) fn apart(&self, wanted: &Wanted<'_>) -> Option<&Path> {
        if matches!(wanted.kind, VolumeKind::Socket(_)) {
            return None;
        }
        let related = |known: &&Known| {
            known.is_beside(wanted) && (known.is_inside(wanted) || known.path_to(wanted).is_some())
        };
        self.known.values().find(related).map(|known| known.path.as_path())
    }

    /// A volume of its own for the source, used by the container.
    pub(crate) fn add(&mut self, wanted: &Wanted<'_>, container: &ContainerId) -> VolumeId {
        let id = VolumeId(self.next);
        self.next += 1;
        let known = Known {
            identity: wanted.identity.clone(),
            path: wanted.path.to_owned(),
            directory: wanted.directory,
            id_map: wanted.id_map.cloned(),
            writable: wanted.writable,
            kind: wanted.kind,
            users: BTreeSet::from([container.clone()]),
        };
        self.known.insert(id, known);
        id
    }

    /// The container uses it from now on, until it is released.
    pub(crate) fn join(&mut self, found: &Match, container: &ContainerId) {
        if let Some(known) = self.known.get_mut(&found.id) {
            known.users.insert(container.clone());
            known.writable |= found.upgrade;
        }
    }

    /// As the guest is told of it.
    pub(crate) fn volume(&self, id: VolumeId) -> Volume {
        let kind = self.known.get(&id).map_or(VolumeKind::Share, |known| known.kind);
        Volume { name: id.name(), kind }
    }

    /// The container uses nothing any more. Those that nobody uses now, the newest first.
    pub(crate) fn release(&mut self, container: &ContainerId) -> Vec<Released> {
        for known in self.known.values_mut() {
            known.users.remove(container);
        }
        let unused = self.known.extract_if(.., |_, known| known.users.is_empty());
        let mut unused: Vec<_> =
            unused.map(|(id, Known { directory, kind, .. })| Released { id, directory, kind }).collect();
        unused.reverse();
        unused
    }
}

/// How deep a source is in its filesystem: wider ones come first, so that others find themselves inside.
pub(crate) fn depth(identity: &Identity) -> usize {
    let path = identity.path.as_ref().map_or(&b""[..], |path| path.as_os_str().as_bytes());
    path.split(|&byte| byte == b'/').filter(|name| !name.is_empty()).count()
}

#[cfg(test)]
mod tests;
