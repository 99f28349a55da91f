//! Extended attributes, ACLs among them.
//!
//! A descriptor with O_PATH takes no calls for attributes, and opening the file would be seen by whoever watches it. So the file
//! is named by its number in /proc/self/fd, which is the working directory of each thread that serves (`thread::own`). A link
//! there leads to the file itself, also when that is a link.
//!
//! An ACL has ids in it. The host's kernel reads them as those of this process's user namespace, whose map is the identity, and
//! shifts them as the mount of the volume says (`vfs_set_acl`). So they pass unchanged, as the ids of stat(2) and chown(2) do.

use std::{ffi::CStr, io};

use rustix::{
    fs::{
        AtFlags, Mode, XattrFlags, chmodat, getxattr, getxattr_query, listxattr, listxattr_query,
        removexattr, setxattr,
    },
    io::Errno,
    path::DecInt,
};
use virtiofsd::filesystem::{GetxattrReply, ListxattrReply, SetxattrFlags};

use super::{Passthrough, inode::Status};

const ACCESS_ACL: &CStr = c"system.posix_acl_access";
const DEFAULT_ACL: &CStr = c"system.posix_acl_default";
/// XATTR_SIZE_MAX and XATTR_LIST_MAX of Linux: no value and no list is longer.
const MOST: u32 = 64 << 10;

fn is_acl(name: &CStr) -> bool {
    name == ACCESS_ACL || name == DEFAULT_ACL
}

impl Passthrough {
    /// # Errors
    /// Also EOPNOTSUPP for an ACL where the file system, or the guest's kernel, has none.
    pub(in super::super) fn setxattr(
        &self,
        inode: u64,
        name: &CStr,
        value: &[u8],
        flags: u32,
        extra: SetxattrFlags,
    ) -> io::Result<()> {
        let inode = self.table.inode(inode)?;
        self.supported(name)?;
        let path = DecInt::from_fd(&*inode);
        setxattr(path.clone(), name, value, XattrFlags::from_bits_retain(flags))?;
        if name == ACCESS_ACL && extra.contains(SetxattrFlags::SETXATTR_ACL_KILL_SGID) {
            // The caller is not in the file's group. The host's kernel cannot know: this process may keep the bit.
            let mode = Status::of(&*inode, c"")?.mode();
            if mode & libc::S_ISGID != 0 {
                let mode = Mode::from_bits_retain(mode & 0o7777 & !libc::S_ISGID);
                chmodat(&self.proc_self_fd, path, mode, AtFlags::empty())?;
            }
        }
        Ok(())
    }

    /// # Errors
    /// As `setxattr`, and ENODATA.
    pub(in super::super) fn getxattr(&self, inode: u64, name: &CStr, size: u32) -> io::Result<GetxattrReply> {
        let inode = self.table.inode(inode)?;
        self.supported(name)?;
        let path = DecInt::from_fd(&*inode);
        if size == 0 {
            return Ok(GetxattrReply::Count(getxattr_query(path, name)? as u32));
        }
        let mut room = size.min(MOST) as usize;
        if is_acl(name) {
            // Linux before 6.2 shifts the ids of an ACL for the mount only if the room is what the ACL takes.
            room = room.min(getxattr_query(path.clone(), name)?);
        }
        let mut value = vec![0; room];
        let length = getxattr(path, name, &mut value[..])?;
        value.truncate(length);
        Ok(GetxattrReply::Value(value))
    }

    pub(in super::super) fn listxattr(&self, inode: u64, size: u32) -> io::Result<ListxattrReply> {
        let inode = self.table.inode(inode)?;
        let path = DecInt::from_fd(&*inode);
        if size == 0 {
            return Ok(ListxattrReply::Count(listxattr_query(path)? as u32));
        }
        let mut names = vec![0; size.min(MOST) as usize];
        let length = listxattr(path, &mut names[..])?;
        names.truncate(length);
        if !self.has_acls() {
            let all = names.split_inclusive(|byte| *byte == 0);
            let shown = all.filter(|name| !CStr::from_bytes_with_nul(name).is_ok_and(is_acl));
            names = shown.flatten().copied().collect();
        }
        Ok(ListxattrReply::Names(names))
    }

    /// # Errors
    /// As `getxattr`.
    pub(in super::super) fn removexattr(&self, inode: u64, name: &CStr) -> io::Result<()> {
        let inode = self.table.inode(inode)?;
        self.supported(name)?;
        Ok(removexattr(DecInt::from_fd(&*inode), name)?)
    }

    /// A guest that does not check access by ACLs must not be told of them.
    fn supported(&self, name: &CStr) -> io::Result<()> {
        if is_acl(name) && !self.has_acls() { Err(Errno::OPNOTSUPP.into()) } else { Ok(()) }
    }
}
