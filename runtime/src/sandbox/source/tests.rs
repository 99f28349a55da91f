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
    let _listener = std::os::unix::net::UnixListener::bind(dir.join("real/socket")).unwrap();
    symlink("real/socket", dir.join("other")).unwrap();
    let kinds = [ExportKind::Directory, ExportKind::File, ExportKind::Socket];
    for (kind, path) in kinds.into_iter().zip(["real/sub", "real/file", "real/socket"]) {
        open_source(&dir.join(path), kind).unwrap();
    }
    let errnos = |path: &str| kinds.map(|kind| open_source(&dir.join(path), kind).err());
    for link in ["link", "link/sub", "other"] {
        assert_eq!(errnos(link), [Some(Errno::LOOP); 3], "{link}");
    }
    let (no_directory, directory, other) = (Some(Errno::NOTDIR), Some(Errno::ISDIR), Some(Errno::OPNOTSUPP));
    assert_eq!(errnos("real/sub"), [None, directory, directory]);
    assert_eq!(errnos("real/file"), [no_directory, None, other]);
    assert_eq!(errnos("real/socket"), [no_directory, other, None]);
    assert_eq!(errnos("fifo"), [no_directory, other, other]);
    assert_eq!(errnos("gone"), [Some(Errno::NOENT); 3]);
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
