//! What the guest may keep without asking, and for how long: the one place that decides it.
//!
//! Names and attributes are kept for a second: what is changed on the host's side is seen after this at the latest. The
//! contents of a file are kept while it is open, and asked for anew when it is opened again or its time of change moved. A file
//! that the guest has locked is shared with somebody: its attributes are asked for before each read, so that what another
//! holder of the lock wrote is seen.

use std::time::Duration;

use virtiofsd::filesystem::OpenOptions;

use super::inode::Inode;

const KEPT: Duration = Duration::from_secs(1);

/// How long a name means the inode that it was found to mean.
pub(super) fn names() -> Duration {
    KEPT
}

/// How long the attributes of a file hold.
pub(super) fn attributes(inode: &Inode) -> Duration {
    if inode.locked().is_some() { Duration::ZERO } else { KEPT }
}

/// What the guest does with the contents of a file that it has opened.
pub(super) fn contents() -> OpenOptions {
    OpenOptions::empty()
}
