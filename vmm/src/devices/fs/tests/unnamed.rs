//! Files without a name (O_TMPFILE).

use std::os::unix::fs::MetadataExt as _;

use super::{guest::of_user, *};

fn tmpfile(flags: i32, mode: u32) -> Body {
    // Linux names such a file "/".
    body()
        .u32((libc::O_TMPFILE | libc::O_RDWR | flags) as u32)
        .u32(libc::S_IFREG | mode)
        .u32(0)
        .u32(0)
        .name("/")
}

#[test]
fn a_file_without_a_name_is_written_and_gets_one_by_a_link() {
    let mut guest = Guest::mount(false);
    fs::create_dir(guest.share().join("dir")).unwrap();
    let directory = guest.lookup("dir");
    let made = guest.call(op::TMPFILE, directory, tmpfile(0, 0o640));
    let (node, handle) = (made.node(), made.created_handle());
    assert_eq!(guest.write(node, handle, 0, b"hello").errno, 0);
    assert_eq!(guest.read(node, handle, 0, 10).body, b"hello");
    assert_eq!(fs::read_dir(guest.share().join("dir")).unwrap().count(), 0);
    let linked = guest.call(op::LINK, directory, body().u64(node).name("linked"));
    assert_eq!(linked.node(), node, "it is the same file");
    let meta = fs::metadata(guest.share().join("dir/linked")).unwrap();
    assert_eq!((meta.len(), meta.nlink(), meta.mode() & 0o7777), (5, 1, 0o640));
}

#[test]
fn one_that_is_to_stay_without_a_name_gets_none() {
    let mut guest = Guest::mount(false);
    let node = guest.call(op::TMPFILE, ROOT, tmpfile(libc::O_EXCL, 0o600)).node();
    assert_eq!(guest.call(op::LINK, ROOT, body().u64(node).name("linked")).errno, libc::ENOENT);
    assert_eq!(fs::read_dir(guest.share()).unwrap().count(), 0);
}

#[test]
fn it_belongs_to_whom_the_guest_says_and_loses_setuid_where_all_do() {
    let mut guest = Guest::with_strip(true);
    fs::set_permissions(guest.share(), std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    fs::set_permissions(guest.outside(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    // FUSE_CREATE_SUPP_GROUP's extension: 24 bytes, type 32, one group.
    let groups = tmpfile(0, 0o4755).u32(24).u32(32).u32(1).u32(33).u64(0);
    let made = guest.raw(&of_user(message(op::TMPFILE, ROOT, groups), 1000), 4096).unwrap();
    let node = made.node();
    assert_eq!(guest.call(op::LINK, ROOT, body().u64(node).name("linked")).errno, 0);
    let meta = fs::metadata(guest.share().join("linked")).unwrap();
    assert_eq!((meta.uid(), meta.gid(), meta.mode() & 0o7777), (1000, 1000, 0o755));
}

#[test]
fn messages_that_are_cut_off_are_none() {
    let mut guest = Guest::mount(false);
    let whole = tmpfile(0, 0o600).u32(16).u32(32).u32(1).u32(33);
    for bad in [
        body().u32(0),
        body().u32(0).u32(0).u32(0).u32(0),
        tmpfile(0, 0).bytes(b"abc"),
        tmpfile(0, 0).u32(7).u32(32),
        tmpfile(0, 0).u32(400).u32(32).u32(1).u32(33),
        tmpfile(0, 0).u32(16).u32(32).u32(2).u32(33),
        tmpfile(0, 0).bytes(&[0; 8000]),
    ] {
        assert_eq!(guest.raw(&message(op::TMPFILE, ROOT, bad), 4096), None);
    }
    assert_eq!(guest.call(op::TMPFILE, ROOT, whole).errno, 0);
    assert_eq!(guest.call(op::TMPFILE, 999, tmpfile(0, 0o600)).errno, libc::ESTALE);
}

#[test]
fn beyond_the_budget_nothing_is_made() {
    let mut guest = Guest::with_files(false, 2);
    assert_eq!(guest.call(op::TMPFILE, ROOT, tmpfile(0, 0o600)).errno, libc::ENFILE);
    let create = body().u32(libc::O_RDWR as u32).u32(0o600).u32(0).u32(0).name("new");
    assert_eq!(guest.call(op::CREATE, ROOT, create).errno, libc::ENFILE);
    assert_eq!(guest.call(op::MKDIR, ROOT, body().u32(0o700).u32(0).name("dir")).errno, 0);
    assert_eq!(guest.call(op::MKDIR, ROOT, body().u32(0o700).u32(0).name("more")).errno, libc::ENFILE);
    assert_eq!(fs::read_dir(guest.share()).unwrap().count(), 1);
}
