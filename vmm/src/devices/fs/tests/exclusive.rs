//! Files that nobody but the guest uses: what it may keep, and what it may leave unsaid.

use std::{os::unix::fs::symlink, path::PathBuf, process::Command};

use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change};

use super::{guest::Reply, *};

const DAY: u64 = 24 * 60 * 60;
const SECOND: u64 = 1;
const RDONLY: u32 = libc::O_RDONLY as u32;
/// FUSE_ATTR_EXCLUSIVE of our guest kernel.
const ATTR_EXCLUSIVE: u32 = 1 << 30;
/// FOPEN_EXCLUSIVE of our guest kernel.
const TAKES_NO_RELEASE: u32 = 1 << 30;
/// The place behind the last entry of a directory.
const END: u64 = i64::MAX as u64;

/// A container's rootfs and a volume, each a filesystem of its own, in a mount namespace of this thread.
struct Shares {
    guest: Guest,
    /// Node of the rootfs.
    rootfs: u64,
}

fn shares(files: u64, knows: bool) -> Shares {
    // SAFETY: the thread is the test's own, and shares no descriptor table afterwards that it shared before.
    unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWNS) }.unwrap();
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC).unwrap();
    let mut guest = Guest::watching(files);
    for directory in ["c/rootfs", "@1"] {
        let path = guest.share().join(directory);
        fs::create_dir_all(&path).unwrap();
        mount("none", &path, "tmpfs", MountFlags::empty(), None).unwrap();
        fs::write(path.join("file"), "text").unwrap();
    }
    // FUSE_SUBMOUNTS, FUSE_INIT_EXT; then what only our kernel says.
    let knows = if knows { 1 << 30 } else { 0 };
    let init = body().u32(7).u32(38).u32(0).u32(1 << 27 | 1 << 30).u32(knows).bytes(&[0; 44]);
    assert_eq!(guest.call(op::INIT, 0, init).errno, 0);
    let container = guest.lookup("c");
    let rootfs = entry(&mut guest, container, "rootfs").node();
    Shares { guest, rootfs }
}

impl Shares {
    fn path(&self) -> PathBuf {
        self.guest.share().join("c/rootfs")
    }
}

fn entry(guest: &mut Guest, parent: u64, name: &str) -> Reply {
    guest.call(op::LOOKUP, parent, body().name(name))
}

/// Of an entry: how long the name holds, how long the attributes do, and whether nobody else uses the file.
fn terms(reply: &Reply) -> (u64, u64, bool) {
    let seconds = |at: usize| u64::from_le_bytes(reply.body[at..at + 8].try_into().unwrap());
    let flags = u32::from_le_bytes(reply.body[124..128].try_into().unwrap());
    (seconds(16), seconds(24), flags & ATTR_EXCLUSIVE != 0)
}

fn create(flags: i32) -> Body {
    body().u32((flags | libc::O_CREAT | libc::O_EXCL) as u32).u32(0o644).u32(0).u32(0)
}

#[test]
fn a_rootfs_is_kept_for_good_and_volumes_for_a_second() {
    let Shares { mut guest, rootfs } = shares(1000, true);
    let container = guest.lookup("c");
    assert_eq!(terms(&entry(&mut guest, ROOT, "c")), (SECOND, SECOND, false));
    assert_eq!(terms(&entry(&mut guest, container, "rootfs")), (SECOND, DAY, true));
    assert_eq!(terms(&entry(&mut guest, rootfs, "file")), (DAY, DAY, true));
    let volume = guest.lookup("@1");
    assert_eq!(terms(&entry(&mut guest, volume, "file")), (SECOND, SECOND, false));
    let nothing = entry(&mut guest, rootfs, "nothing");
    assert_eq!((nothing.node(), terms(&nothing).0), (0, DAY), "that there is nothing is kept too");
    assert_eq!(entry(&mut guest, volume, "nothing").errno, libc::ENOENT);
}

#[test]
fn what_has_several_names_or_is_no_file_is_not_opened_unasked() {
    let Shares { mut guest, rootfs } = shares(1000, true);
    let at = guest.share().join("c/rootfs");
    fs::hard_link(at.join("file"), at.join("other")).unwrap();
    symlink("file", at.join("link")).unwrap();
    assert_eq!(terms(&entry(&mut guest, rootfs, "other")), (DAY, SECOND, false));
    assert_eq!(terms(&entry(&mut guest, rootfs, "link")), (DAY, DAY, false));
    let other = entry(&mut guest, rootfs, "other").node();
    assert_eq!(guest.read(other, 0, 0, 10).errno, libc::EBADF);
}

#[test]
fn a_kernel_that_does_not_know_it_is_told_nothing_of_it() {
    let Shares { mut guest, rootfs } = shares(1000, false);
    assert_eq!(terms(&entry(&mut guest, rootfs, "file")), (SECOND, SECOND, false));
    assert_eq!(entry(&mut guest, rootfs, "nothing").errno, libc::ENOENT);
    let file = entry(&mut guest, rootfs, "file").node();
    assert_eq!(guest.read(file, 0, 0, 10).errno, libc::EBADF);
    let opened = guest.open(file, libc::O_RDWR).handle();
    assert_ne!(opened, 0);
    assert_eq!(guest.read(file, opened, 0, 10).body, b"text");
}

#[test]
fn a_file_is_used_without_opening_it() {
    let shares = shares(1000, true);
    let path = shares.path();
    let Shares { mut guest, rootfs } = shares;
    let file = entry(&mut guest, rootfs, "file").node();
    assert_eq!(guest.read(file, 0, 0, 10).body, b"text");
    assert_eq!(guest.write(file, 0, 4, b" and more").errno, 0);
    assert_eq!(guest.read(file, 0, 0, 100).body, b"text and more");
    assert_eq!(guest.call(op::FSYNC, file, body().u64(0).u32(0).u32(0)).errno, 0);
    assert_eq!(fs::read(path.join("file")).unwrap(), b"text and more");
    // What it is asked to open it opens; there is nothing to close.
    assert_eq!(guest.open(file, libc::O_WRONLY | libc::O_TRUNC).handle(), 0);
    assert_eq!(fs::read(path.join("file")).unwrap(), b"");
    let release = body().u64(0).u32(RDONLY).u32(0).u64(0);
    assert_eq!(guest.call(op::RELEASE, file, release).errno, libc::EBADF);

    let made = guest.call(op::CREATE, rootfs, create(libc::O_WRONLY).name("made"));
    let flags = u32::from_le_bytes(made.body[136..140].try_into().unwrap());
    assert_eq!((made.created_handle(), flags & TAKES_NO_RELEASE), (0, TAKES_NO_RELEASE));
    assert_eq!(terms(&made), (DAY, DAY, true));
    assert_eq!(guest.write(made.node(), 0, 0, b"new").errno, 0);
    assert_eq!(guest.read(made.node(), 0, 0, 10).body, b"new");
    assert_eq!(fs::read(path.join("made")).unwrap(), b"new");
}

#[test]
fn one_that_is_not_there_any_more_is_read_as_long_as_the_guest_has_it() {
    let Shares { mut guest, rootfs } = shares(1000, true);
    let file = entry(&mut guest, rootfs, "file").node();
    assert_eq!(guest.call(op::UNLINK, rootfs, body().name("file")).errno, 0);
    assert_eq!(guest.read(file, 0, 0, 10).body, b"text");
    assert_eq!(guest.write(file, 0, 0, b"TEXT").errno, 0);
    assert_eq!(guest.read(file, 0, 0, 10).body, b"TEXT");
    guest.raw(&message(op::FORGET, file, body().u64(1)), 0);
    assert_eq!(guest.read(file, 0, 0, 10).errno, libc::ESTALE);
}

#[test]
fn descriptors_that_are_kept_give_way_to_others() {
    // Five inodes are the directories and the file that is open.
    let shares = shares(16, true);
    for number in 0..10 {
        fs::write(shares.path().join(number.to_string()), number.to_string()).unwrap();
    }
    let Shares { mut guest, rootfs } = shares;
    let nodes: Vec<_> = (0..10).map(|number| entry(&mut guest, rootfs, &number.to_string()).node()).collect();
    for _ in 0..2 {
        for (number, node) in nodes.iter().enumerate() {
            assert_eq!(guest.read(*node, 0, 0, 10).body, number.to_string().as_bytes());
        }
    }
}

#[test]
fn what_is_taken_from_the_guest_is_not_read_unasked() {
    let Shares { mut guest, rootfs } = shares(1000, true);
    let file = entry(&mut guest, rootfs, "file").node();
    assert_eq!(guest.read(file, 0, 0, 10).body, b"text");
    guest.filter.revoke(b"c");
    assert_eq!(guest.read(file, 0, 0, 10).errno, libc::ESTALE);
}

#[test]
fn a_directory_is_read_without_opening_it_and_says_where_it_ends() {
    let shares = shares(1000, true);
    for number in 0..500 {
        fs::write(shares.path().join(format!("file-{number}")), "").unwrap();
    }
    let Shares { mut guest, rootfs } = shares;
    let (mut offset, mut names) = (0, Vec::new());
    while offset != END {
        let reply = guest.call(op::READDIR, rootfs, body().u64(0).u64(offset).u32(4096).u32(0).u64(0).u64(0));
        assert!(!reply.body.is_empty(), "the last entry says that it is the last");
        let mut rest = &reply.body[..];
        while !rest.is_empty() {
            offset = u64::from_le_bytes(rest[8..16].try_into().unwrap());
            let length = u32::from_le_bytes(rest[16..20].try_into().unwrap()) as usize;
            names.push(String::from_utf8(rest[24..24 + length].to_vec()).unwrap());
            rest = &rest[(24 + length).next_multiple_of(8)..];
        }
    }
    names.sort();
    names.dedup();
    assert_eq!(names.len(), 503, "with file, and the two dots");
    let behind = guest.call(op::READDIR, rootfs, body().u64(0).u64(END).u32(4096).u32(0).u64(0).u64(0));
    assert_eq!((behind.errno, behind.body.len()), (0, 0));
}

#[test]
fn a_change_by_another_process_is_heard_of_wherever_the_guest_has_been() {
    let shares = shares(1000, true);
    fs::create_dir(shares.path().join("seen")).unwrap();
    let at = shares.path();
    let Shares { mut guest, rootfs } = shares;
    entry(&mut guest, rootfs, "seen").node();
    assert!(!guest.others_changed());
    guest.call(op::MKDIR, rootfs, body().u32(0o755).u32(0).name("made")).node();
    assert!(!guest.others_changed(), "the guest itself");
    for script in [": >seen/new", ": >made/new", "chmod 600 file", "echo more >>file"] {
        assert!(Command::new("sh").args(["-c", script]).current_dir(&at).status().unwrap().success());
        assert!(guest.others_changed(), "{script}");
    }
}

/// FOPEN_KEEP_CACHE.
const KEEP: u32 = 1 << 1;

#[test]
fn contents_of_a_volume_are_kept_over_openings_while_nobody_changes_them() {
    let Shares { mut guest, .. } = shares(1000, true);
    let path = guest.share().join("@1/file");
    let volume = guest.lookup("@1");
    let file = entry(&mut guest, volume, "file").node();
    let kept = |guest: &mut Guest| {
        let opened = guest.open(file, libc::O_RDONLY);
        assert_ne!(opened.handle(), 0);
        u32::from_le_bytes(opened.body[8..12].try_into().unwrap()) & KEEP != 0
    };
    until_settled(&path);
    assert!(!kept(&mut guest), "the first time");
    assert!(kept(&mut guest));
    fs::write(&path, "TEXT").unwrap();
    assert!(!kept(&mut guest), "of the same size");
    assert!(!kept(&mut guest), "so young that another change might have the same time");
    until_settled(&path);
    assert!(!kept(&mut guest));
    assert!(kept(&mut guest));
}

/// Until a change of now has another time than the last one.
fn until_settled(path: &std::path::Path) {
    use std::os::unix::fs::MetadataExt as _;
    let changed = || {
        let status = fs::metadata(path).unwrap();
        std::time::Duration::new(status.ctime().cast_unsigned(), status.ctime_nsec() as u32)
    };
    let now = || std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    while now() < changed() + std::time::Duration::from_millis(25) {
        std::thread::yield_now();
    }
}
