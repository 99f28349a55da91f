//! The volumes of a sandbox's containers, as far as watches in them go.

use std::collections::BTreeMap;

use bulkhead_protocol::{
    container::{Mount, MountSource, SharePath},
    id::ContainerId,
    limits,
    watch::WatchPath,
};

/// By container: where in the share a volume is, and where its container sees it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Volumes(BTreeMap<ContainerId, Vec<(SharePath, String)>>);

impl Volumes {
    /// What `mounts` has of the share.
    pub(crate) fn add(&mut self, container: &ContainerId, mounts: &[Mount]) {
        let volume = |mount: &Mount| match &mount.source {
            MountSource::Bind { path, .. } => Some((path.clone(), mount.destination.clone())),
            MountSource::Filesystem { .. } | MountSource::Cgroup | MountSource::Remount => None,
        };
        let volumes: Vec<_> = mounts.iter().filter_map(volume).collect();
        if !volumes.is_empty() {
            self.0.insert(container.clone(), volumes);
        }
    }

    /// Whether there were any.
    pub(crate) fn remove(&mut self, container: &ContainerId) -> bool {
        self.0.remove(container).is_some()
    }

    /// For the guest: each once.
    pub(super) fn paths(&self) -> Vec<String> {
        let mut paths: Vec<_> = self.0.values().flatten().map(|(path, _)| path.as_str().to_owned()).collect();
        paths.sort_unstable();
        paths.dedup();
        paths.truncate(limits::WATCH_VOLUMES);
        paths
    }

    /// The volume that has this path, as a container sees it: `web:/etc/config`.
    pub(super) fn volume_of(&self, path: &WatchPath) -> String {
        self.longest(path).map_or_else(
            || lossy(path.as_bytes()),
            |(container, destination, _)| format!("{container}:{}", lossy(destination.as_bytes())),
        )
    }

    /// The same with the way from there: `web:/etc/config/sub`.
    pub(super) fn name_of(&self, path: &WatchPath) -> String {
        let rest = self.longest(path).map_or(&[][..], |(_, _, len)| &path.as_bytes()[len..]);
        self.volume_of(path) + &lossy(rest)
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

/// A name may have newlines, and a line of the log is one message.
fn lossy(path: &[u8]) -> String {
    String::from_utf8_lossy(path).replace('\n', "\\n")
}
