//! Names by which the journal finds objects again that other modules have made.

use std::{fs::Metadata, os::unix::fs::MetadataExt as _, path::Path};

use serde::{Deserialize, Serialize};

/// Which namespace it is, for as long as it exists: the device and inode of its file below /proc/PID/ns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct NamespaceId {
    device: u64,
    inode: u64,
}

impl From<&Metadata> for NamespaceId {
    fn from(metadata: &Metadata) -> Self {
        Self { device: metadata.dev(), inode: metadata.ino() }
    }
}

impl NamespaceId {
    #[cfg(test)]
    pub(crate) fn example() -> Self {
        Self { device: 4, inode: 4_026_531_840 }
    }
}

/// A scope of systemd, by systemd's names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scope {
    /// `machine.slice`.
    pub slice: String,
    /// `libpod-web.scope`.
    pub unit: String,
}

impl Scope {
    /// The scope whose cgroup is `path`, in the hierarchy below `root`; `None` when the directory has not the name of a
    /// scope.
    pub fn at(path: &Path, root: &Path) -> Option<Self> {
        let unit = path.file_name()?.to_str().filter(|name| name.ends_with(".scope"))?.to_owned();
        let above = path.parent()?;
        // The root slice has no directory.
        let slice = if above == root { "-.slice" } else { above.file_name()?.to_str()? };
        Some(Self { slice: slice.to_owned(), unit })
    }
}
