//! ACLs: the guest's kernel checks access by them, and the host's applies default ACLs to what is new.

use std::{os::unix::fs::MetadataExt as _, path::Path};

use rustix::fs::{XattrFlags, getxattr, setxattr};

use super::*;

const ACCESS: &str = "system.posix_acl_access";
const DEFAULT: &str = "system.posix_acl_default";
/// FUSE_DONT_MASK, FUSE_POSIX_ACL and FUSE_SETXATTR_EXT.
const FEATURES: u32 = 1 << 6 | 1 << 20 | 1 << 29;
const NOBODY: u32 = u32::MAX;

/// linux/posix_acl_xattr.h: version 2, then tag, permissions and id of each entry.
fn acl(entries: &[(u16, u16, u32)]) -> Vec<u8> {
    let entries = entries.iter().flat_map(|(tag, permissions, id)| {
        [tag.to_le_bytes().to_vec(), permissions.to_le_bytes().to_vec(), id.to_le_bytes().to_vec()].concat()
    });
    [2, 0, 0, 0].into_iter().chain(entries).collect()
}

/// The owner and the user 1000 may all, others nothing.
fn named() -> Vec<u8> {
    acl(&[(1, 7, NOBODY), (2, 7, 1000), (4, 7, NOBODY), (0x10, 7, NOBODY), (0x20, 0, NOBODY)])
}

/// A guest with ACLs; `None` where the file system of this machine's temporary files has none.
fn with_acls() -> Option<Guest> {
    let mut guest = Guest::mount(false);
    guest.remount(FEATURES);
    let probe = guest.outside().join("probe");
    fs::create_dir(&probe).unwrap();
    let set = setxattr(&probe, ACCESS, &named(), XattrFlags::empty());
    fs::remove_dir(&probe).unwrap();
    if set.is_err() {
        fs::write(guest.share().join("file"), "").unwrap();
        let file = guest.lookup("file");
        let refused = guest.call(op::SETXATTR, file, xattr(ACCESS, &named(), 0)).errno;
        assert_eq!(refused, libc::EOPNOTSUPP, "as the host says");
        eprintln!("no ACLs here: nothing else is tested");
        return None;
    }
    Some(guest)
}

/// `extra`: FUSE_SETXATTR_ACL_KILL_SGID is 1.
fn xattr(name: &str, value: &[u8], extra: u32) -> Body {
    body().u32(value.len() as u32).u32(0).u32(extra).u32(0).name(name).bytes(value)
}

fn get(name: &str) -> Body {
    body().u32(4096).u32(0).name(name)
}

fn mode_of(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().mode() & 0o7777
}

#[test]
fn an_acl_is_set_read_listed_and_removed() {
    let Some(mut guest) = with_acls() else { return };
    let path = guest.share().join("file");
    fs::write(&path, "").unwrap();
    let file = guest.lookup("file");
    assert_eq!(guest.call(op::GETXATTR, file, get(ACCESS)).errno, libc::ENODATA);
    assert_eq!(guest.call(op::SETXATTR, file, xattr(ACCESS, &named(), 0)).errno, 0);
    let mut seen = [0; 100];
    let length = getxattr(&path, ACCESS, &mut seen).unwrap();
    assert_eq!(seen[..length], named(), "the host has the same ids");
    assert_eq!(mode_of(&path), 0o770);
    assert_eq!(guest.call(op::GETXATTR, file, get(ACCESS)).body, named());
    let size = guest.call(op::GETXATTR, file, body().u32(0).u32(0).name(ACCESS)).body;
    assert_eq!(size[..4], (named().len() as u32).to_le_bytes());
    let list = guest.call(op::LISTXATTR, file, body().u32(4096).u32(0)).body;
    assert!(list.split(|byte| *byte == 0).any(|name| name == ACCESS.as_bytes()));
    assert_eq!(guest.call(op::SETXATTR, file, xattr(ACCESS, b"none", 0)).errno, libc::EOPNOTSUPP);
    // A default ACL is a directory's.
    assert_eq!(guest.call(op::SETXATTR, file, xattr(DEFAULT, &named(), 0)).errno, libc::EACCES);
    assert_eq!(guest.call(op::REMOVEXATTR, file, body().name(ACCESS)).errno, 0);
    assert_eq!(guest.call(op::GETXATTR, file, get(ACCESS)).errno, libc::ENODATA);
}

/// What the four ways of making something come to below a directory, with a umask of 077.
fn modes(guest: &mut Guest, directory: &str) -> Vec<u32> {
    let path = guest.share().join(directory);
    let parent = guest.lookup(directory);
    let create = body().u32(libc::O_RDWR as u32).u32(libc::S_IFREG | 0o666).u32(0o077).u32(0).name("created");
    guest.call(op::CREATE, parent, create).node();
    let mknod = body().u32(libc::S_IFIFO | 0o666).u32(0).u32(0o077).u32(0).name("fifo");
    guest.call(op::MKNOD, parent, mknod).node();
    guest.call(op::MKDIR, parent, body().u32(0o777).u32(0o077).name("below")).node();
    let tmpfile = (libc::O_TMPFILE | libc::O_RDWR) as u32;
    let tmpfile = body().u32(tmpfile).u32(libc::S_IFREG | 0o666).u32(0o077).u32(0).name("/");
    let unnamed = guest.call(op::TMPFILE, parent, tmpfile).node();
    assert_eq!(guest.call(op::LINK, parent, body().u64(unnamed).name("unnamed")).errno, 0);
    ["created", "fifo", "unnamed", "below"].map(|name| mode_of(&path.join(name))).into()
}

#[test]
fn a_default_acl_beats_the_umask_and_without_one_the_umask_holds() {
    let Some(mut guest) = with_acls() else { return };
    for name in ["shared", "plain"] {
        fs::create_dir(guest.share().join(name)).unwrap();
    }
    setxattr(guest.share().join("shared"), DEFAULT, &named(), XattrFlags::empty()).unwrap();
    assert_eq!(modes(&mut guest, "shared"), [0o660, 0o660, 0o660, 0o770]);
    assert_eq!(modes(&mut guest, "plain"), [0o600, 0o600, 0o600, 0o700]);
    // It is handed down.
    let mut seen = [0; 100];
    let length = getxattr(guest.share().join("shared/below"), DEFAULT, &mut seen).unwrap();
    assert_eq!(seen[..length], named());
}

#[test]
fn setgid_goes_when_the_guest_says_so() {
    let Some(mut guest) = with_acls() else { return };
    let path = guest.share().join("file");
    fs::write(&path, "").unwrap();
    let file = guest.lookup("file");
    for (extra, mode) in [(0, 0o2770), (1, 0o770)] {
        fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o2755)).unwrap();
        assert_eq!(guest.call(op::SETXATTR, file, xattr(ACCESS, &named(), extra)).errno, 0);
        assert_eq!(mode_of(&path), mode);
    }
}

/// It would not honour them.
#[test]
fn a_guest_that_does_not_check_by_acls_is_told_of_none() {
    let Some(mut guest) = with_acls() else { return };
    let path = guest.share().join("file");
    fs::write(&path, "").unwrap();
    setxattr(&path, ACCESS, &named(), XattrFlags::empty()).unwrap();
    setxattr(&path, "user.x", b"y", XattrFlags::empty()).unwrap();
    guest.remount(0);
    let file = guest.lookup("file");
    let set = body().u32(named().len() as u32).u32(0).name(ACCESS).bytes(&named());
    assert_eq!(guest.call(op::SETXATTR, file, set).errno, libc::EOPNOTSUPP);
    assert_eq!(guest.call(op::GETXATTR, file, get(ACCESS)).errno, libc::EOPNOTSUPP);
    assert_eq!(guest.call(op::REMOVEXATTR, file, body().name(ACCESS)).errno, libc::EOPNOTSUPP);
    assert_eq!(guest.call(op::LISTXATTR, file, body().u32(4096).u32(0)).body, b"user.x\0");
    // Its umask comes applied.
    let mkdir = body().u32(0o777).u32(0o077).name("dir");
    guest.call(op::MKDIR, ROOT, mkdir).node();
    assert_eq!(mode_of(&guest.share().join("dir")), 0o777);
}

/// A link and a fifo have attributes of their own, and nothing is opened for them.
#[test]
fn attributes_of_links_and_fifos_are_their_own() {
    let mut guest = Guest::mount(false);
    fs::write(guest.share().join("file"), "").unwrap();
    setxattr(guest.share().join("file"), "trusted.x", b"y", XattrFlags::empty()).ok();
    std::os::unix::fs::symlink("file", guest.share().join("link")).unwrap();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        guest.share().join("fifo"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RWXU,
        0,
    )
    .unwrap();
    for name in ["link", "fifo"] {
        let node = guest.lookup(name);
        assert_eq!(guest.call(op::GETXATTR, node, get("trusted.x")).errno, libc::ENODATA, "{name}");
        assert_eq!(guest.call(op::LISTXATTR, node, body().u32(0).u32(0)).errno, 0, "{name}");
        // user.* is for files and directories (xattr(7)).
        let set = body().u32(1).u32(0).name("user.x").bytes(b"y");
        assert_eq!(guest.call(op::SETXATTR, node, set).errno, libc::EPERM, "{name}");
    }
}
