use std::{
    fs::{self, File},
    os::unix::fs::{MetadataExt, PermissionsExt, symlink},
};

use tempfile::TempDir;

use super::*;

fn pair() -> (TempDir, TempDir) {
    (TempDir::new().unwrap(), TempDir::new().unwrap())
}

fn copied(from: &TempDir, to: &TempDir) -> io::Result<()> {
    let open = |directory: &TempDir| OwnedFd::from(File::open(directory.path()).unwrap());
    copy(&open(from), &open(to))
}

#[test]
fn a_tree_is_copied_with_modes_and_times() {
    let (from, to) = pair();
    fs::create_dir_all(from.path().join("a/b")).unwrap();
    let file = from.path().join("a/b/file");
    fs::write(&file, "text").unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o4711)).unwrap();
    fs::set_permissions(from.path().join("a"), fs::Permissions::from_mode(0o1777)).unwrap();
    copied(&from, &to).unwrap();
    assert_eq!(fs::read(to.path().join("a/b/file")).unwrap(), b"text");
    for path in ["a", "a/b", "a/b/file"] {
        let (old, new) =
            (from.path().join(path).metadata().unwrap(), to.path().join(path).metadata().unwrap());
        assert_eq!((old.mode(), old.mtime(), old.uid()), (new.mode(), new.mtime(), new.uid()), "{path}");
    }
}

#[test]
fn a_link_is_copied_as_a_link() {
    let (from, to) = pair();
    symlink("/etc/passwd", from.path().join("link")).unwrap();
    copied(&from, &to).unwrap();
    assert_eq!(fs::read_link(to.path().join("link")).unwrap(), std::path::Path::new("/etc/passwd"));
}

#[test]
fn a_tree_without_end_is_an_error() {
    let (from, to) = pair();
    let mut path = from.path().to_owned();
    for _ in 0..DEPTH {
        path.push("d");
    }
    fs::create_dir_all(path).unwrap();
    assert!(copied(&from, &to).is_err());
}
