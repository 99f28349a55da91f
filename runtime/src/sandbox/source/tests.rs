use std::{fs, os::unix::fs::symlink};

use super::*;

#[test]
fn a_source_that_has_become_a_link_or_a_device_is_not_opened() {
    let dir = tempfile::tempdir().unwrap();
    let dir = fs::canonicalize(dir.path()).unwrap();
    fs::create_dir_all(dir.join("real/sub")).unwrap();
    fs::write(dir.join("real/file"), "").unwrap();
    symlink("real", dir.join("link")).unwrap();
    nix::unistd::mkfifo(&dir.join("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    let errno = |path: &str, directory| open_source(&dir.join(path), directory).unwrap_err();
    open_source(&dir.join("real/sub"), true).unwrap();
    open_source(&dir.join("real/file"), false).unwrap();
    assert_eq!([errno("link", true), errno("link/sub", true)], [Errno::LOOP; 2]);
    assert_eq!([errno("real/sub", false), errno("real/file", true)], [Errno::ISDIR, Errno::NOTDIR]);
    assert_eq!([errno("fifo", false), errno("gone", true)], [Errno::OPNOTSUPP, Errno::NOENT]);
}

#[test]
fn the_path_in_a_filesystem_goes_through_the_root_of_the_mount() {
    let table =
        MountTable::parse(b"7 1 8:1 /volumes/data /run/sub rw - ext4 d rw\n8 1 8:1 / / rw - ext4 d rw");
    let path = |entry: usize, path: &str| in_filesystem(&table.entries()[entry], Path::new(path));
    // Two ways to one directory.
    assert_eq!(path(0, "/run/sub/x/y"), Some("/volumes/data/x/y".into()));
    assert_eq!(path(1, "/volumes/data/x/y"), Some("/volumes/data/x/y".into()));
    assert_eq!(path(0, "/run/sub").unwrap().to_str(), Some("/volumes/data"));
    assert_eq!(path(0, "/run/submarine"), None);
}
