use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use tempfile::TempDir;

use super::*;

fn root() -> (TempDir, Root) {
    let outside = TempDir::new().unwrap();
    fs::create_dir(outside.path().join("root")).unwrap();
    let fd = fs::File::open(outside.path().join("root")).unwrap();
    (outside, Root::from(OwnedFd::from(fd)))
}

fn path_of(fd: &OwnedFd) -> PathBuf {
    use std::os::fd::AsRawFd;
    fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd())).unwrap()
}

#[test]
fn a_link_out_of_the_root_stays_inside() {
    let (outside, root) = root();
    symlink("/../../..", outside.path().join("root/up")).unwrap();
    let made = root.make_directory("/up/etc/x").unwrap();
    assert_eq!(path_of(&made), outside.path().join("root/etc/x"));
}

#[test]
fn dots_at_the_front_stop_at_the_root() {
    let (outside, root) = root();
    let made = root.make_directory("/../../a/b").unwrap();
    assert_eq!(path_of(&made), outside.path().join("root/a/b"));
    assert!(!outside.path().join("a").exists());
}

#[test]
fn what_a_link_to_nothing_names_is_made_in_the_root_and_below_a_mount() {
    let (outside, mut root) = root();
    symlink("/nowhere", outside.path().join("root/link")).unwrap();
    let made = root.make_directory("/link/x").unwrap();
    assert_eq!(path_of(&made), outside.path().join("root/nowhere/x"));
    assert!(!Path::new("/nowhere").exists());
    hold(&mut root, &outside, "/data");
    let mounted = outside.path().join("mounted/data");
    symlink("../target", mounted.join("link")).unwrap();
    // Links leave a mount by the way that its place in the root is.
    assert_eq!(path_of(&root.make_file("/data/link").unwrap()), outside.path().join("root/target"));
}

#[test]
fn a_device_is_made_where_its_link_leads() {
    let (outside, root) = root();
    fs::create_dir(outside.path().join("root/dev")).unwrap();
    symlink("other", outside.path().join("root/dev/device")).unwrap();
    symlink("../deep/down", outside.path().join("root/dev/other")).unwrap();
    symlink("loop", outside.path().join("root/dev/loop")).unwrap();
    let (parent, name) = root.make_parent_of_target("/dev/device").unwrap();
    assert_eq!((path_of(&parent), name.as_str()), (outside.path().join("root/deep"), "down"));
    let (parent, name) = root.make_parent_of_target("//dev/./plain").unwrap();
    assert_eq!((path_of(&parent), name.as_str()), (outside.path().join("root/dev"), "plain"));
    assert_eq!(root.make_parent_of_target("/dev/loop").unwrap_err(), Errno::LOOP);
}

#[test]
fn a_missing_file_is_made_with_its_parents_and_kept_when_there() {
    let (outside, root) = root();
    root.make_file("/etc/hosts").unwrap();
    fs::write(outside.path().join("root/etc/hosts"), "kept").unwrap();
    root.make_file("/etc/hosts").unwrap();
    assert_eq!(fs::read(outside.path().join("root/etc/hosts")).unwrap(), b"kept");
}

#[test]
fn a_file_has_no_parent_when_its_path_is_the_root() {
    let (_outside, root) = root();
    assert_eq!(root.make_parent("/").unwrap_err(), Errno::INVAL);
    assert_eq!(root.make_parent("/a/..").unwrap_err(), Errno::INVAL);
}

#[test]
fn a_share_path_with_a_link_in_it_is_refused() {
    let (outside, root) = root();
    symlink("/etc", outside.path().join("root/link")).unwrap();
    let directory: OwnedFd = root.open("/", OFlags::PATH).unwrap();
    assert_eq!(open_beneath(&directory, "link/passwd", OFlags::PATH).unwrap_err(), Errno::LOOP);
}

#[test]
fn a_directory_that_is_swapped_for_a_link_leads_nowhere_else() {
    use rustix::fs::{CWD, RenameFlags, renameat_with};

    let (outside, root) = root();
    let (inside, target) = (outside.path().join("root"), outside.path().join("target"));
    fs::create_dir_all(inside.join("a")).unwrap();
    fs::create_dir(&target).unwrap();
    symlink("../../../target", inside.join("b")).unwrap();
    let (stop, stopped) = std::sync::mpsc::channel::<()>();
    let swap = std::thread::spawn({
        let (a, b) = (inside.join("a"), inside.join("b"));
        move || {
            while stopped.try_recv() == Err(std::sync::mpsc::TryRecvError::Empty) {
                renameat_with(CWD, &a, CWD, &b, RenameFlags::EXCHANGE).unwrap();
            }
        }
    });
    for number in 0..500 {
        // Either inside, or an error.
        let directory = root.make_directory(&format!("/a/d{number}/e"));
        let file = root.make_file(&format!("/a/f{number}"));
        for made in directory.into_iter().chain(file) {
            assert!(path_of(&made).starts_with(&inside));
        }
    }
    drop(stop);
    swap.join().unwrap();
    assert_eq!(fs::read_dir(&target).unwrap().count(), 0);
}

/// A mount without a mount: `hold` only needs a directory.
fn hold(root: &mut Root, outside: &TempDir, path: &str) {
    let place = root.make_directory(path).unwrap();
    let mounted = outside.path().join("mounted").join(path.trim_start_matches('/'));
    fs::create_dir_all(&mounted).unwrap();
    root.hold(path, &place, fs::File::open(&mounted).unwrap().into()).unwrap();
}

#[test]
fn a_path_below_a_mount_starts_there_whatever_its_directory_is_called_by_now() {
    let (outside, mut root) = root();
    hold(&mut root, &outside, "/proc");
    let mounted = outside.path().join("mounted/proc");
    fs::create_dir(mounted.join("sys")).unwrap();
    fs::write(mounted.join("kcore"), "").unwrap();
    // Who shares the rootfs moves the mount away and shows an empty directory instead.
    let inside = outside.path().join("root");
    fs::rename(inside.join("proc"), inside.join("elsewhere")).unwrap();
    fs::create_dir(inside.join("proc")).unwrap();
    for (path, place) in [("/proc", "."), ("/proc/", "."), ("/proc/kcore", "kcore"), ("//proc/./sys", "sys")]
    {
        assert_eq!(path_of(&root.place(path).unwrap()), mounted.join(place).components().as_path(), "{path}");
    }
    assert_eq!(root.place("/proc/absent").unwrap_err(), Errno::NOENT);
    assert_eq!(path_of(&root.make_parent("/proc/sys/new").unwrap().0), mounted.join("sys"));
    // Names are whole.
    fs::create_dir(inside.join("process")).unwrap();
    assert_eq!(path_of(&root.place("/process").unwrap()), inside.join("process"));
}

#[test]
fn the_last_mount_that_covers_a_path_counts() {
    let (outside, mut root) = root();
    for path in ["/dev", "/dev/pts"] {
        hold(&mut root, &outside, path);
    }
    let mounted = outside.path().join("mounted");
    assert_eq!(path_of(&root.place("/dev/pts").unwrap()), mounted.join("dev/pts"));
    let over = outside.path().join("over");
    fs::create_dir_all(over.join("pts")).unwrap();
    let place = root.place("/dev").unwrap();
    root.hold("/dev", &place, fs::File::open(&over).unwrap().into()).unwrap();
    assert_eq!(path_of(&root.place("/dev/pts").unwrap()), over.join("pts"));
}

#[test]
fn a_link_in_a_mount_leads_to_where_it_led_before() {
    let (outside, mut root) = root();
    fs::create_dir_all(outside.path().join("root/etc/x")).unwrap();
    let place = root.make_directory("/data").unwrap();
    let mounted = outside.path().join("root/data");
    symlink("/etc", mounted.join("link")).unwrap();
    root.hold("/data", &place, fs::File::open(&mounted).unwrap().into()).unwrap();
    assert_eq!(path_of(&root.place("/data/link/x").unwrap()), outside.path().join("root/etc/x"));
}

#[test]
fn a_file_that_was_mounted_is_not_held() {
    let (outside, mut root) = root();
    let file = root.make_file("/etc/hosts").unwrap();
    let other = outside.path().join("hosts");
    fs::write(&other, "").unwrap();
    root.hold("/etc/hosts", &file, fs::File::open(&other).unwrap().into()).unwrap();
    assert_eq!(path_of(&root.place("/etc/hosts").unwrap()), outside.path().join("root/etc/hosts"));
}

#[test]
fn a_link_itself_is_answered_for_a_file_of_ones_own() {
    let (outside, root) = root();
    symlink("/target", outside.path().join("root/link")).unwrap();
    assert_eq!(path_of(&root.make_own_file("/link").unwrap()), outside.path().join("root/link"));
    assert!(!outside.path().join("root/target").exists());
    assert_eq!(path_of(&root.make_own_file("/new").unwrap()), outside.path().join("root/new"));
}
