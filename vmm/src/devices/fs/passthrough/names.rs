//! Operations on a name in a directory: what makes a file, and what moves or removes a name.
//!
//!   slots of the budget ─▶ `As` the caller ─▶ mkdirat, mknodat, symlinkat, openat2 ─▶ `As` ends ─▶ the entry for the guest
//!
//! A file belongs to whom the guest says that it asks, so the host checks that caller and applies its rules for new files. Slots
//! come first: beyond its budget a guest changes nothing. Names and links are moved with the rights of the file server, since the
//! guest's kernel has checked them.

use std::{ffi::CStr, fs::File, io, sync::Arc};

use rustix::{
    fs::{
        AtFlags, FileType, Mode, OFlags, RenameFlags, linkat, mkdirat, mknodat, openat, renameat_with,
        symlinkat, unlinkat,
    },
    io::Errno,
    path::DecInt,
};
use virtiofsd::filesystem::{Entry, OpenOptions};

use super::{
    Passthrough,
    contents::UNASKED,
    handle::{Handle, OpenFlags},
    inode::{Inode, Status},
    opened::{Opened, Use},
    policy,
    thread::{As, Caller},
};

/// A new file that is open: its entry, and the handle.
pub(in super::super) type Created = (Entry, u64, OpenOptions);

fn permissions(mode: u32) -> Mode {
    Mode::from_bits_retain(mode & 0o7777)
}

impl Passthrough {
    pub(in super::super) fn mkdir(
        &self,
        caller: &Caller,
        parent: u64,
        name: &CStr,
        mode: u32,
        umask: u32,
    ) -> io::Result<Entry> {
        self.make(caller, parent, name, self.mask(umask), |directory| {
            mkdirat(directory, name, permissions(mode))
        })
    }

    pub(in super::super) fn mknod(
        &self,
        caller: &Caller,
        parent: u64,
        name: &CStr,
        mode: u32,
        device: u32,
        umask: u32,
    ) -> io::Result<Entry> {
        let kind = match mode & libc::S_IFMT {
            // mknod(2): no type means a regular file.
            0 => FileType::RegularFile,
            _ => FileType::from_raw_mode(mode),
        };
        self.make(caller, parent, name, self.mask(umask), |directory| {
            mknodat(directory, name, kind, permissions(mode), device.into())
        })
    }

    pub(in super::super) fn symlink(
        &self,
        caller: &Caller,
        target: &CStr,
        parent: u64,
        name: &CStr,
    ) -> io::Result<Entry> {
        self.make(caller, parent, name, None, |directory| symlinkat(target, directory, name))
    }

    /// Makes what is not opened.
    fn make(
        &self,
        caller: &Caller,
        parent: u64,
        name: &CStr,
        mask: Option<u32>,
        make: impl FnOnce(&Inode) -> rustix::io::Result<()>,
    ) -> io::Result<Entry> {
        let directory = self.table.inode(parent)?;
        let slot = self.slot()?;
        {
            let _as = As::caller(caller, mask)?;
            make(&directory)?;
        }
        let (file, status) = self.look(&directory, name)?;
        self.admit((parent, name), &directory, file, status, slot)
    }

    /// Makes and opens a file; opens the one that is there, unless `flags` have O_EXCL.
    pub(in super::super) fn create(
        &self,
        caller: &Caller,
        parent: u64,
        name: &CStr,
        mode: u32,
        flags: u32,
        umask: u32,
    ) -> io::Result<Created> {
        let directory = self.table.inode(parent)?;
        let wanted = OpenFlags::new(flags);
        let wanted = if directory.is_watched() { wanted.to_keep() } else { wanted };
        // Exclusive, or it could be a file that the caller may not open.
        let exclusive = wanted.host() | OFlags::CREATE | OFlags::EXCL;
        let slots = (self.slot()?, self.slot()?);
        let made = {
            let _as = As::caller(caller, self.mask(umask))?;
            self.open_below(&directory, name, exclusive, permissions(mode))
        };
        match made {
            Ok(file) => self.opened_new((parent, name), &directory, file.into(), flags, slots),
            Err(Errno::EXIST) if flags.cast_signed() & libc::O_EXCL == 0 => {
                drop(slots);
                let entry = self.find(parent, name)?;
                match self.open(entry.inode, flags) {
                    Ok((handle, options)) => Ok((entry, handle, options)),
                    Err(error) => {
                        self.forget(entry.inode, 1);
                        Err(error)
                    }
                }
            }
            Err(errno) => Err(errno.into()),
        }
    }

    /// Makes and opens a file without a name (O_TMPFILE). It may get a name by `link`, unless `flags` have O_EXCL.
    ///
    /// # Errors
    /// Also EOPNOTSUPP where the file system has no such files.
    pub(in super::super) fn tmpfile(
        &self,
        caller: &Caller,
        parent: u64,
        mode: u32,
        flags: u32,
        umask: u32,
    ) -> io::Result<Created> {
        let directory = self.table.inode(parent)?;
        let exclusive = OFlags::from_bits_retain(flags & libc::O_EXCL.cast_unsigned());
        let unnamed = OpenFlags::new(flags).host() | OFlags::TMPFILE | exclusive;
        let slots = (self.slot()?, self.slot()?);
        let file = {
            let _as = As::caller(caller, self.mask(umask))?;
            self.open_below(&directory, c".", unnamed, permissions(mode))?
        };
        // It belongs to whom the directory belongs to; in the root, to nobody who could be revoked.
        self.opened_new((parent, c""), &directory, file.into(), flags, slots)
    }

    /// The guest gets a file that was just made: as an inode and as a handle.
    fn opened_new(
        &self,
        found: (u64, &CStr),
        directory: &Inode,
        file: File,
        flags: u32,
        slots: (super::Slot, super::Slot),
    ) -> io::Result<Created> {
        // By the descriptor: the name may be another file's by now.
        let path = openat(&self.proc_self_fd, DecInt::from_fd(&file), Self::NAMED, Mode::empty())?;
        let status = Status::of(&path, c"")?;
        let entry = self.admit(found, directory, path, status, slots.0)?;
        let inode = self.table.inode(entry.inode);
        if let Ok(inode) = &inode
            && inode.is_exclusive()
        {
            self.keeper.keep(inode, Use::Write, Arc::new(Opened::new(file, slots.1)));
            return Ok((entry, UNASKED, policy::exclusive()));
        }
        let handle = inode
            .map(|inode| Handle::new(inode, file, OpenFlags::new(flags), slots.1))
            .and_then(|handle| self.table.open(entry.inode, handle));
        match handle {
            Ok(handle) => Ok((entry, handle, policy::contents(false))),
            Err(error) => {
                self.forget(entry.inode, 1);
                Err(error)
            }
        }
    }

    pub(in super::super) fn unlink(&self, parent: u64, name: &CStr) -> io::Result<()> {
        Ok(unlinkat(&*self.table.inode(parent)?, name, AtFlags::empty())?)
    }

    pub(in super::super) fn rmdir(&self, parent: u64, name: &CStr) -> io::Result<()> {
        Ok(unlinkat(&*self.table.inode(parent)?, name, AtFlags::REMOVEDIR)?)
    }

    /// `flags` are those of renameat2(2).
    pub(in super::super) fn rename(
        &self,
        (from, name): (u64, &CStr),
        (to, new_name): (u64, &CStr),
        flags: u32,
    ) -> io::Result<()> {
        let (from, to) = (self.table.inode(from)?, self.table.inode(to)?);
        Ok(renameat_with(&*from, name, &*to, new_name, RenameFlags::from_bits_retain(flags))?)
    }

    /// Also of a file without a name.
    pub(in super::super) fn link(&self, inode: u64, parent: u64, name: &CStr) -> io::Result<Entry> {
        let (linked, directory): (Arc<Inode>, _) = (self.table.inode(inode)?, self.table.inode(parent)?);
        let number = DecInt::from_fd(&*linked);
        linkat(&self.proc_self_fd, number, &*directory, name, AtFlags::SYMLINK_FOLLOW)?;
        self.find(parent, name)
    }

    /// What the host shall take from the mode of a new file. Without ACLs the guest's kernel has done it already.
    fn mask(&self, umask: u32) -> Option<u32> {
        self.has_acls().then_some(umask)
    }
}
