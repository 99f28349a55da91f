//! What the guest may keep without asking, and for how long: the one place that decides it.
//!
//! | | names, attributes | contents |
//! |---|---|---|
//! | a rootfs, of which it is heard when others change it | until then | until then, open or not |
//! | everything else | a second | while its time of change stays the same, which is looked at when it is opened |
//!
//! A file that the guest has locked is shared with somebody: its attributes are asked for before each read, so that what another
//! holder of the lock wrote is seen. A file with several names may be changed by one of them that nobody watches.

use std::time::Duration;

use virtiofsd::filesystem::OpenOptions;

use super::inode::{Inode, Status};

/// Of what others may change unheard.
const SHARED: Duration = Duration::from_secs(1);
/// Of what is watched: for good.
const WATCHED: Duration = Duration::from_hours(24);

/// Private to our guest kernel (`guest-kernel-config/patches/virtiofs-trust.patch`): nobody else uses the inode. It is opened for
/// reading, locked and closed without a message then.
pub(super) const ATTR_EXCLUSIVE: u32 = 1 << 30;
/// As well: the handle takes no RELEASE.
const OPEN_EXCLUSIVE: u32 = 1 << 30;

/// How long a name in this directory means what it was found to mean, which may be nothing.
pub(super) fn names(directory: &Inode) -> Duration {
    if directory.is_watched() { WATCHED } else { SHARED }
}

/// How long the attributes of a file hold.
pub(super) fn attributes(inode: &Inode, status: &Status) -> Duration {
    if inode.locked().is_some() {
        Duration::ZERO
    } else if inode.is_watched() && (inode.is_directory() || status.links() <= 1) {
        WATCHED
    } else {
        SHARED
    }
}

/// What the guest does with the contents of a file that it has opened, and has kept some of from the last time.
pub(super) fn contents(same: bool) -> OpenOptions {
    if same { OpenOptions::KEEP_CACHE } else { OpenOptions::empty() }
}

/// As `contents`, of a file that nobody else uses.
pub(super) fn exclusive() -> OpenOptions {
    let kept = OpenOptions::KEEP_CACHE | OpenOptions::NOFLUSH | OpenOptions::CACHE_DIR;
    // SAFETY: all bits are values of the type; the library hands on those that it has no name for.
    kept | unsafe { OpenOptions::from_bits_unchecked(OPEN_EXCLUSIVE) }
}
