//! What becomes of setuid, setgid and file capabilities, with the option and without.

use std::{
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::Path,
};

use rustix::{
    fs::{XattrFlags, getxattr, removexattr, setxattr},
    io::Errno,
};
use virtiofsd::{
    filesystem::{Extensions, FileSystem as _, FsOptions},
    fuse::InHeader,
};

use super::*;

const CAPABILITIES: &str = "security.capability";
/// struct vfs_cap_data, revision 2, effective: cap_net_raw is permitted.
const NET_RAW: [u8; 20] = [1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
/// FATTR_MODE and FATTR_FH.
const MODE: u32 = 1;
const HANDLE: u32 = 1 << 6;
const MODES: [u32; 6] = [0o4755, 0o2755, 0o6755, 0o6644, 0o1777, 0o640];

fn mode_of(path: &Path) -> u32 {
    fs::metadata(path).unwrap().mode() & 0o7777
}

/// A chmod; `mode` is what the guest says, with a type or without.
fn chmod(mode: u32, handle: Option<u64>) -> Body {
    let valid = MODE | if handle.is_some() { HANDLE } else { 0 };
    body().u32(valid).u32(0).u64(handle.unwrap_or(0)).bytes(&[0; 52]).u32(mode).bytes(&[0; 16])
}

fn xattr(name: &str, value: &[u8]) -> Body {
    body().u32(value.len() as u32).u32(0).name(name).bytes(value)
}

fn errno_of(result: Result<(), Errno>) -> i32 {
    result.map_or_else(Errno::raw_os_error, |()| 0)
}

/// Makes a file in each way there is and says which modes the host sees.
fn modes_of_files(guest: &mut Guest, mode: u32) -> Vec<u32> {
    let share = guest.share();
    let created = body().u32(libc::O_RDWR as u32).u32(mode).u32(0).u32(0).name("created");
    let created = guest.call(op::CREATE, ROOT, created);
    let (node, handle) = (created.node(), created.created_handle());
    let mut seen = vec![mode_of(&share.join("created"))];
    for (name, kind) in [("file", libc::S_IFREG), ("untyped", 0), ("fifo", libc::S_IFIFO)] {
        let made = body().u32(kind | mode).u32(0).u32(0).u32(0).name(name);
        guest.call(op::MKNOD, ROOT, made).node();
        seen.push(mode_of(&share.join(name)));
    }
    // The last one lies about what it is.
    for (said, handle) in [
        (libc::S_IFREG | mode, None),
        (libc::S_IFREG | mode, Some(handle)),
        (mode, None),
        (libc::S_IFDIR | mode, None),
    ] {
        fs::set_permissions(share.join("created"), fs::Permissions::from_mode(0o600)).unwrap();
        let reply = guest.call(op::SETATTR, node, chmod(said, handle));
        assert_eq!(reply.errno, 0);
        let seen_by_guest = u32::from_le_bytes(reply.body[16 + 60..][..4].try_into().unwrap());
        seen.push(mode_of(&share.join("created")));
        assert_eq!(seen_by_guest & 0o7777, mode_of(&share.join("created")), "the guest is told");
    }
    for name in ["created", "file", "untyped", "fifo"] {
        fs::remove_file(share.join(name)).unwrap();
    }
    seen
}

#[test]
fn a_file_loses_setuid_and_setgid_however_it_gets_its_mode() {
    let mut guest = Guest::with_strip(true);
    for mode in MODES {
        assert_eq!(modes_of_files(&mut guest, mode), [mode & !0o6000; 8], "{mode:o}");
    }
    assert_eq!(guest.metrics.stripped.get(), 4 * 8);
}

#[test]
fn without_the_option_a_file_has_the_mode_that_the_guest_gives_it() {
    let mut guest = Guest::with_strip(false);
    for mode in MODES {
        assert_eq!(modes_of_files(&mut guest, mode), [mode; 8], "{mode:o}");
    }
    assert_eq!(guest.metrics.stripped.get(), 0);
}

#[test]
fn a_directory_keeps_setgid_and_hands_down_its_group() {
    for (strip, lost) in [(false, 0), (true, libc::S_ISUID)] {
        let mut guest = Guest::with_strip(strip);
        let directory = guest.call(op::MKDIR, ROOT, body().u32(0o755).u32(0).name("directory")).node();
        for mode in MODES {
            // The guest may say that it is a file.
            for kind in [libc::S_IFDIR, 0, libc::S_IFREG] {
                assert_eq!(guest.call(op::SETATTR, directory, chmod(kind | mode, None)).errno, 0);
                assert_eq!(mode_of(&guest.share().join("directory")), mode & !lost, "{mode:o}");
            }
        }
        assert_eq!(guest.call(op::SETATTR, directory, chmod(0o2755, None)).errno, 0);
        guest.call(op::MKDIR, directory, body().u32(0o6755).u32(0).name("below")).node();
        assert_eq!(mode_of(&guest.share().join("directory/below")), 0o2755);
    }
}

#[test]
fn what_a_file_has_stays_until_its_mode_is_set() {
    let mut guest = Guest::with_strip(true);
    let path = guest.share().join("sudo");
    fs::write(&path, "").unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o6755)).unwrap();
    let file = guest.lookup("sudo");
    let times = body().u32(1 << 4).u32(0).bytes(&[0; 80]);
    assert_eq!(guest.call(op::SETATTR, file, times).errno, 0);
    assert_eq!(guest.call(op::LINK, ROOT, body().u64(file).name("link")).errno, 0);
    assert_eq!(guest.call(op::RENAME, ROOT, body().u64(ROOT).name("sudo").name("moved")).errno, 0);
    assert_eq!((mode_of(&guest.share().join("moved")), guest.metrics.stripped.get()), (0o6755, 0));
    assert_eq!(guest.call(op::SETATTR, file, chmod(0o6711, None)).errno, 0);
    assert_eq!(mode_of(&guest.share().join("moved")), 0o711);
}

#[test]
fn capabilities_are_refused_and_other_attributes_are_not() {
    let mut guest = Guest::with_strip(true);
    let path = guest.share().join("file");
    fs::write(&path, "").unwrap();
    let file = guest.lookup("file");
    // The kernel would refuse the second with EINVAL, whoever asks.
    for value in [&NET_RAW[..], b"none"] {
        assert_eq!(guest.call(op::SETXATTR, file, xattr(CAPABILITIES, value)).errno, libc::EPERM);
    }
    assert_eq!(guest.metrics.stripped.get(), 2);
    assert_eq!(getxattr(&path, CAPABILITIES, &mut [0; 32]), Err(Errno::NODATA));
    for name in ["user.security.capability", "user.x"] {
        let own = errno_of(setxattr(&path, name, b"value", XattrFlags::empty()));
        assert_eq!(guest.call(op::SETXATTR, file, xattr(name, b"value")).errno, own, "{name}");
    }
}

/// A process without CAP_SETFCAP, as the one that runs this may be, can neither set nor remove them.
#[test]
fn capabilities_are_removed_as_ever_and_without_the_option_set_as_ever() {
    for strip in [false, true] {
        let mut guest = Guest::with_strip(strip);
        let (path, twin) = (guest.share().join("file"), guest.share().join("twin"));
        fs::write(&path, "").unwrap();
        fs::write(&twin, "").unwrap();
        let file = guest.lookup("file");
        let own = setxattr(&twin, CAPABILITIES, &NET_RAW, XattrFlags::empty());
        if strip {
            assert_eq!(setxattr(&path, CAPABILITIES, &NET_RAW, XattrFlags::empty()), own);
        } else {
            let set = guest.call(op::SETXATTR, file, xattr(CAPABILITIES, &NET_RAW));
            assert_eq!(set.errno, errno_of(own));
            let invalid = guest.call(op::SETXATTR, file, xattr(CAPABILITIES, b"none"));
            assert_eq!(invalid.errno, libc::EINVAL);
        }
        let removed = guest.call(op::REMOVEXATTR, file, body().name(CAPABILITIES));
        assert_eq!(removed.errno, errno_of(removexattr(&twin, CAPABILITIES)));
        assert_eq!(getxattr(&path, CAPABILITIES, &mut [0; 32]), Err(Errno::NODATA));
    }
}

#[test]
fn a_new_file_brings_no_attribute_along() {
    let mut guest = Guest::with_strip(true);
    // FUSE_SUBMOUNTS and FUSE_INIT_EXT, then FUSE_SECURITY_CTX in the second half.
    let offer = body().u32(7).u32(38).u32(0).u32(1 << 27 | 1 << 30).u32(u32::MAX).bytes(&[0; 44]);
    let reply = guest.raw(&message(op::INIT, 0, offer), 4096).unwrap();
    assert_eq!(reply.errno, 0);
    let taken = u32::from_le_bytes(reply.body[32..36].try_into().unwrap());
    assert_eq!(taken & 1, 0);
}

#[test]
fn the_configuration_of_the_device_decides() {
    for (strip_setuid, mode) in [(false, 0o4755), (true, 0o755)] {
        let directory = tempfile::tempdir().unwrap();
        let (root, proc_self_fd) = (directory.path().to_str().unwrap().into(), proc_self_fd());
        let (tag, shares) = ("share".into(), Arc::<Shares>::default());
        let given = Arc::clone(&shares);
        let config = Config {
            tag,
            read_only: false,
            strip_setuid,
            exclusive_rootfs: false,
            root,
            proc_self_fd,
            shares: given,
            files: 1000,
        };
        let _device = Fs::new(config).unwrap();
        let filter = shares.0.lock().unwrap()[0].clone();
        filter.prepare_thread().unwrap();
        filter.init(FsOptions::SUBMOUNTS).unwrap();
        let context = InHeader::default().into();
        filter.mknod(context, ROOT, c"file", libc::S_IFREG | 0o4755, 0, 0, Extensions::default()).unwrap();
        assert_eq!(mode_of(&directory.path().join("file")), mode);
    }
}
