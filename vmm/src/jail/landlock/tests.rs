use std::{
    fs,
    io::{ErrorKind, Write},
    os::unix::fs::symlink,
    process::Command,
    thread,
};

use super::*;

/// It holds for a thread, and for good: so each test has one of its own.
fn restricted(test: impl FnOnce() + Send + 'static) {
    let thread = thread::spawn(|| {
        if restrict().unwrap() {
            test();
        } else {
            let _ = writeln!(std::io::stderr(), "not tested: this kernel has no Landlock of Linux 5.19");
        }
    });
    thread.join().unwrap();
}

#[test]
fn files_are_made_moved_and_linked_between_directories() {
    restricted(|| {
        let share = tempfile::tempdir().unwrap();
        let path = |name: &str| share.path().join(name);
        fs::create_dir(path("a")).unwrap();
        fs::create_dir(path("b")).unwrap();
        fs::write(path("a/file"), "word").unwrap();
        fs::rename(path("a/file"), path("b/file")).unwrap();
        fs::hard_link(path("b/file"), path("a/again")).unwrap();
        symlink("file", path("b/link")).unwrap();
        fs::File::options().write(true).open(path("b/link")).unwrap().set_len(2).unwrap();
        assert_eq!(fs::read(path("a/again")).unwrap(), b"wo");
        fs::remove_dir_all(path("b")).unwrap();
    });
}

#[test]
fn nothing_is_run_and_no_mount_is_changed() {
    restricted(|| {
        let refused = Command::new("/bin/true").status().unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::PermissionDenied);
        let share = tempfile::tempdir().unwrap();
        let refused = rustix::mount::mount_bind(share.path(), share.path()).unwrap_err();
        assert_eq!(refused, rustix::io::Errno::PERM);
    });
}
