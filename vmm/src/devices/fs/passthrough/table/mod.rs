//! The inodes and handles that the guest has, and the export that each belongs to, so that they can be taken from it.
//!
//!   LOOKUP(root, export) ─▶ an owner, which all below it inherits      revoke(export) ─▶ all that it owns
//!
//! The guest names inodes and handles by numbers of its choice: one that is not here is refused. An inode is here as often as
//! it was handed out and not forgotten, and no number is ever used for something else. So what was revoked while a request for
//! it ran finds its parent gone. The lock is held for no system call: what is removed is returned, and closed by the caller.

use std::{
    collections::HashMap,
    io,
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
};

use super::{
    errno,
    handle::Handle,
    inode::{Id, Inode},
};

/// The root of the share (FUSE_ROOT_ID). It is known from the mount on and has no owner.
pub(super) const ROOT: u64 = virtiofsd::fuse::ROOT_ID;

#[derive(Debug, Default)]
pub(super) struct Table(RwLock<Entries>);

#[derive(Debug, Default)]
struct Entries {
    root: Option<Arc<Inode>>,
    inodes: HashMap<u64, Entry>,
    numbers: HashMap<Id, u64>,
    handles: HashMap<u64, (u64, Arc<Handle>)>,
    /// Children of the root by name.
    owners: HashMap<Vec<u8>, u32>,
    last: Last,
}

/// The numbers that were given last; they only grow.
#[derive(Debug, Default, Clone, Copy)]
struct Last {
    inode: u64,
    handle: u64,
    owner: u32,
}

#[derive(Debug)]
struct Entry {
    inode: Arc<Inode>,
    owner: u32,
    /// How often the guest was given it.
    lookups: u64,
}

/// An inode and its number, which the guest has once more.
pub(super) type Given = (u64, Arc<Inode>);

/// What is to be closed.
#[derive(Debug, Default)]
pub(super) struct Revoked {
    pub(super) inodes: Vec<Arc<Inode>>,
    pub(super) handles: Vec<Arc<Handle>>,
}

impl Table {
    fn read(&self) -> RwLockReadGuard<'_, Entries> {
        // Every change leaves the entries whole.
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Entries> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// # Errors
    /// ESTALE, which makes the guest's kernel look the path up again; EBADF for the root before a mount.
    pub(super) fn inode(&self, number: u64) -> io::Result<Arc<Inode>> {
        self.read().inode(number).cloned()
    }

    /// # Errors
    /// As `inode`; EBADF when the handle is not one of that inode.
    pub(super) fn handle(&self, number: u64, handle: u64) -> io::Result<Arc<Handle>> {
        let entries = self.read();
        entries.inode(number)?;
        match entries.handles.get(&handle) {
            Some((of, handle)) if *of == number => Ok(Arc::clone(handle)),
            Some(_) | None => Err(errno(libc::EBADF)),
        }
    }

    /// Gives the guest the inode that it has by this id once more, found in `parent` by `name`.
    ///
    /// # Errors
    /// ESTALE when the parent was revoked meanwhile.
    pub(super) fn give_again(&self, parent: u64, name: &[u8], id: &Id) -> io::Result<Option<Given>> {
        if !self.read().numbers.contains_key(id) {
            return Ok(None);
        }
        let mut entries = self.write();
        entries.owner(parent, name)?;
        Ok(entries.again(id))
    }

    /// Gives the guest an inode, found in `parent` by `name`; the one that it has when it has one by this id.
    ///
    /// # Errors
    /// ESTALE when the parent was revoked meanwhile.
    pub(super) fn give(&self, parent: u64, name: &[u8], inode: Arc<Inode>) -> io::Result<Given> {
        let mut entries = self.write();
        let owner = entries.owner(parent, name)?;
        if let Some(given) = entries.again(&inode.id()) {
            return Ok(given);
        }
        entries.last.inode += 1;
        let number = ROOT + entries.last.inode;
        entries.numbers.insert(inode.id(), number);
        entries.inodes.insert(number, Entry { inode: Arc::clone(&inode), owner, lookups: 1 });
        Ok((number, inode))
    }

    /// The guest gives up `count` references, or as many as it has. Returns the inode when none is left.
    pub(super) fn forget(&self, number: u64, count: u64) -> Option<Arc<Inode>> {
        let mut entries = self.write();
        let known = entries.inodes.get_mut(&number)?;
        known.lookups = known.lookups.saturating_sub(count);
        if known.lookups > 0 {
            return None;
        }
        let Entry { inode, .. } = entries.inodes.remove(&number)?;
        entries.numbers.remove(&inode.id());
        Some(inode)
    }

    /// Returns the number of the new handle.
    ///
    /// # Errors
    /// ESTALE when the inode was revoked meanwhile.
    pub(super) fn open(&self, number: u64, handle: Handle) -> io::Result<u64> {
        let mut entries = self.write();
        entries.inode(number)?;
        entries.last.handle += 1;
        let opened = entries.last.handle;
        entries.handles.insert(opened, (number, Arc::new(handle)));
        Ok(opened)
    }

    /// # Errors
    /// As `handle`.
    pub(super) fn close(&self, number: u64, handle: u64) -> io::Result<Arc<Handle>> {
        let mut entries = self.write();
        entries.inode(number)?;
        match entries.handles.remove(&handle) {
            Some((of, closed)) if of == number => Ok(closed),
            other => {
                entries.handles.extend(other.map(|other| (handle, other)));
                Err(errno(libc::EBADF))
            }
        }
    }

    /// Takes all below a child of the root.
    pub(super) fn revoke(&self, name: &[u8]) -> Revoked {
        let mut entries = self.write();
        let Some(owner) = entries.owners.remove(name) else { return Revoked::default() };
        let Entries { inodes, numbers, handles, .. } = &mut *entries;
        let revoked: Vec<_> = inodes.extract_if(|_, entry| entry.owner == owner).collect();
        for (_, entry) in &revoked {
            numbers.remove(&entry.inode.id());
        }
        let closed = handles.extract_if(|_, (of, _)| *of != ROOT && !inodes.contains_key(of));
        Revoked {
            handles: closed.map(|(_, (_, handle))| handle).collect(),
            inodes: revoked.into_iter().map(|(_, entry)| entry.inode).collect(),
        }
    }

    /// Takes everything; what the guest has from now on begins with this root, if there is one.
    pub(super) fn start_over(&self, root: Option<Arc<Inode>>) -> Revoked {
        let numbers = root.iter().map(|root| (root.id(), ROOT)).collect();
        let fresh = |last| Entries { root, numbers, last, ..Entries::default() };
        let mut entries = self.write();
        let last = entries.last;
        let old = std::mem::replace(&mut *entries, fresh(last));
        drop(entries);
        Revoked {
            inodes: old.inodes.into_values().map(|entry| entry.inode).chain(old.root).collect(),
            handles: old.handles.into_values().map(|(_, handle)| handle).collect(),
        }
    }
}

impl Entries {
    fn inode(&self, number: u64) -> io::Result<&Arc<Inode>> {
        if number == ROOT {
            return self.root.as_ref().ok_or_else(|| errno(libc::EBADF));
        }
        self.inodes.get(&number).map(|entry| &entry.inode).ok_or_else(|| errno(libc::ESTALE))
    }

    /// One reference more to an inode that is here.
    fn again(&mut self, id: &Id) -> Option<Given> {
        let number = *self.numbers.get(id)?;
        if number == ROOT {
            return self.root.as_ref().map(|root| (ROOT, Arc::clone(root)));
        }
        let known = self.inodes.get_mut(&number)?;
        known.lookups = known.lookups.saturating_add(1);
        Some((number, Arc::clone(&known.inode)))
    }

    /// Whom that belongs to which is found in `parent` by `name`.
    fn owner(&mut self, parent: u64, name: &[u8]) -> io::Result<u32> {
        if parent != ROOT {
            return self.inodes.get(&parent).map(|parent| parent.owner).ok_or_else(|| errno(libc::ESTALE));
        }
        if let Some(owner) = self.owners.get(name) {
            return Ok(*owner);
        }
        self.last.owner = self.last.owner.wrapping_add(1);
        self.owners.insert(name.to_owned(), self.last.owner);
        Ok(self.last.owner)
    }
}

#[cfg(test)]
mod tests;
