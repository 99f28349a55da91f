//! The inodes and handles that the guest has, and the container that each belongs to, so that they can be taken from it.
//!
//!   LOOKUP(root, container) ─▶ an owner, which all below it inherits      revoke(container) ─▶ all that it owns
//!
//! The guest names inodes by numbers of its choice: one that is not here is refused, whatever the library knows. A number is here
//! as often as it was handed out and not forgotten, as in the library, and never handed out again for something else. So what
//! was revoked while a request for it ran finds its parent gone. An inode costs some 30 bytes here, and 100 times that there.

use std::{
    collections::HashMap,
    sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
};

/// The root of the share (FUSE_ROOT_ID). It is always known and has no owner.
const ROOT: u64 = 1;

#[derive(Debug, Default)]
pub(super) struct Known(RwLock<Entries>);

#[derive(Debug, Default)]
struct Entries {
    /// Children of the root by name.
    owners: HashMap<Vec<u8>, u32>,
    next: u32,
    inodes: HashMap<u64, Inode>,
    /// The inode that each was opened by.
    handles: HashMap<u64, u64>,
}

#[derive(Debug)]
struct Inode {
    owner: u32,
    /// How often the guest was given it.
    lookups: u64,
}

/// What the library must let go of.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Revoked {
    /// With how often the guest has it.
    pub(super) inodes: Vec<(u64, u64)>,
    /// Each with its inode.
    pub(super) handles: Vec<(u64, u64)>,
}

impl Known {
    fn read(&self) -> RwLockReadGuard<'_, Entries> {
        // Every change leaves the entries whole.
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Entries> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn has(&self, inode: u64) -> bool {
        self.read().has(inode)
    }

    /// The guest is about to be given `inode`, found in `parent` by `name`. False when the parent was revoked meanwhile.
    pub(super) fn give(&self, parent: u64, name: &[u8], inode: u64) -> bool {
        let mut entries = self.write();
        let owner = if parent == ROOT {
            entries.owner(name)
        } else if let Some(parent) = entries.inodes.get(&parent) {
            parent.owner
        } else {
            return false;
        };
        let known = entries.inodes.entry(inode).or_insert(Inode { owner, lookups: 0 });
        known.lookups = known.lookups.saturating_add(1);
        true
    }

    /// The guest gives up `count` references; how many of them it has.
    pub(super) fn forget(&self, inode: u64, count: u64) -> u64 {
        let mut entries = self.write();
        let Some(known) = entries.inodes.get_mut(&inode) else { return 0 };
        let count = count.min(known.lookups);
        known.lookups -= count;
        if known.lookups == 0 {
            entries.inodes.remove(&inode);
        }
        count
    }

    /// False when the inode was revoked meanwhile.
    pub(super) fn open(&self, inode: u64, handle: u64) -> bool {
        let mut entries = self.write();
        let known = entries.has(inode);
        if known {
            entries.handles.insert(handle, inode);
        }
        known
    }

    pub(super) fn close(&self, handle: u64) {
        self.write().handles.remove(&handle);
    }

    /// Takes all below a child of the root.
    pub(super) fn revoke(&self, name: &[u8]) -> Revoked {
        let mut entries = self.write();
        let Some(owner) = entries.owners.remove(name) else { return Revoked::default() };
        let Entries { inodes, handles, .. } = &mut *entries;
        let owned = inodes.extract_if(|_, inode| inode.owner == owner);
        let revoked: HashMap<u64, u64> = owned.map(|(number, inode)| (number, inode.lookups)).collect();
        let handles = handles.extract_if(|_, inode| *inode != ROOT && !inodes.contains_key(inode));
        Revoked { handles: handles.collect(), inodes: revoked.into_iter().collect() }
    }

    /// The guest starts over.
    pub(super) fn clear(&self) {
        let mut entries = self.write();
        *entries = Entries { next: entries.next, ..Entries::default() };
    }
}

impl Entries {
    fn has(&self, inode: u64) -> bool {
        inode == ROOT || self.inodes.contains_key(&inode)
    }

    fn owner(&mut self, name: &[u8]) -> u32 {
        if let Some(owner) = self.owners.get(name) {
            return *owner;
        }
        self.next = self.next.wrapping_add(1);
        self.owners.insert(name.to_owned(), self.next);
        self.next
    }
}

#[cfg(test)]
mod tests;
