use std::fs::File;

use tempfile::TempDir;

use super::*;

fn root() -> (TempDir, Root) {
    let directory = TempDir::new().unwrap();
    let fd = OwnedFd::from(File::open(directory.path()).unwrap());
    (directory, Root::from(fd))
}

#[test]
fn something_else_in_the_place_of_a_device_is_an_error() {
    let (directory, root) = root();
    std::fs::create_dir(directory.path().join("dev")).unwrap();
    std::fs::write(directory.path().join("dev/null"), "not a device").unwrap();
    let null = defaults().next().unwrap();
    let error = make(&root, &null, None).unwrap_err();
    assert_eq!(error.chain(), "make device /dev/null: something else is there");
}

#[test]
fn links_that_are_there_stay_but_ptmx_is_replaced() {
    let (directory, root) = root();
    let dev = directory.path().join("dev");
    std::fs::create_dir(&dev).unwrap();
    std::fs::write(dev.join("fd"), "").unwrap();
    std::fs::write(dev.join("ptmx"), "").unwrap();
    for (target, path) in LINKS {
        link(&root, target, path).unwrap();
    }
    assert!(dev.join("fd").is_file());
    assert_eq!(std::fs::read_link(dev.join("ptmx")).unwrap(), std::path::Path::new("pts/ptmx"));
    assert_eq!(std::fs::read_link(dev.join("stdout")).unwrap(), std::path::Path::new("/proc/self/fd/1"));
}

#[test]
fn only_devices_of_the_guest_are_opened() {
    let nodes = open_guest_nodes(&["/etc/passwd".to_owned(), "/dev/absent".to_owned()]);
    assert!(nodes.is_empty());
}
