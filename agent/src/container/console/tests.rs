use std::{fs::File, os::unix::fs::symlink};

use tempfile::TempDir;

use super::*;

#[test]
fn a_link_in_the_place_of_the_console_is_not_followed() {
    let directory = TempDir::new().unwrap();
    let root = Root::from(OwnedFd::from(File::open(directory.path()).unwrap()));
    std::fs::create_dir(directory.path().join("dev")).unwrap();
    symlink("/etc/target", directory.path().join("dev/console")).unwrap();
    let null = OwnedFd::from(File::open("/dev/null").unwrap());
    let error = bind_console(&root, &null).unwrap_err();
    assert_eq!(error.chain(), "bind terminal on /dev/console: something else is there");
    assert!(!directory.path().join("etc").exists());
}
