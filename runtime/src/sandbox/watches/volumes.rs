//! The volumes of a sandbox's containers, as far as watches in them go.

use std::collections::BTreeMap;

use bulkhead_protocol::{
    container::{Mount, MountSource, Place, SharePath, Volume, VolumeKind},
    id::ContainerId,
    watch::WatchPath,
};

/// By container: where in the share a volume is, and where its container sees it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Volumes(BTreeMap<ContainerId, Vec<(SharePath, String)>>);

impl Volumes {
    /// What `mounts` has of the share, mounts below a bind included. Whether there is any.
    pub(crate) fn add(&mut self, container: &ContainerId, mounts: &[Mount]) -> bool {
        let volumes: Vec<_> = mounts.iter().flat_map(of_mount).collect();
        let any = !volumes.is_empty();
        if any {
            self.0.insert(container.clone(), volumes);
        }
        any
    }

    /// Whether there were any.
    pub(crate) fn remove(&mut self, container: &ContainerId) -> bool {
        self.0.remove(container).is_some()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The volume that has this path, as a container sees it: `web:/etc/config`.
    pub(super) fn volume_of(&self, path: &WatchPath) -> Option<String> {
        let (container, destination, _) = self.longest(path)?;
        Some(format!("{container}:{}", lossy(destination.as_bytes())))
    }

    /// The same with the way from there: `web:/etc/config/sub`. What is in no volume has its path in the share.
    pub(super) fn name_of(&self, path: &WatchPath) -> String {
        let below = self.longest(path).map_or(0, |(_, _, len)| len);
        self.volume_of(path).unwrap_or_default() + &lossy(&path.as_bytes()[below..])
    }

    fn longest(&self, path: &WatchPath) -> Option<(&ContainerId, &str, usize)> {
        let all = self.0.iter().flat_map(|(container, volumes)| volumes.iter().map(move |v| (container, v)));
        let within = all.filter(|(_, (share, _))| {
            let rest = path.as_bytes().strip_prefix(share.as_str().as_bytes());
            rest.is_some_and(|rest| rest.is_empty() || rest[0] == b'/')
        });
        within
            .max_by_key(|(_, (share, _))| share.as_str().len())
            .map(|(container, (share, destination))| (container, destination.as_str(), share.as_str().len()))
    }
}

fn of_mount(mount: &Mount) -> Vec<(SharePath, String)> {
    let MountSource::Bind { place, submounts } = &mount.source else { return Vec::new() };
    let below = submounts
        .iter()
        .map(|submount| (&submount.place, format!("{}/{}", mount.destination, submount.below.as_str())));
    let all = [(place, mount.destination.clone())].into_iter().chain(below);
    all.filter_map(|(place, destination)| Some((in_share(place)?, destination))).collect()
}

/// `None` for a tmpfs of the guest, and for a path that is too long to be one of the share.
fn in_share(place: &Place) -> Option<SharePath> {
    let Volume { name, kind: VolumeKind::Share } = &place.volume else { return None };
    match &place.path {
        None => Some(name.clone()),
        Some(path) => SharePath::try_from(format!("{}/{}", name.as_str(), path.as_str())).ok(),
    }
}

/// A name may have newlines, and a line of the log is one message.
fn lossy(path: &[u8]) -> String {
    String::from_utf8_lossy(path).replace('\n', "\\n")
}
