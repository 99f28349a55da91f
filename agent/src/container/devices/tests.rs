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
fn owner_and_mode_go_to_the_node_that_was_made_whatever_has_taken_its_name() {
    use std::os::unix::fs::PermissionsExt as _;

    let (directory, root) = root();
    let mode = |name: &str| {
        let path = directory.path().join("dev").join(name);
        std::fs::symlink_metadata(path).unwrap().permissions().mode() & 0o7777
    };
    let (uid, gid) = (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
    let fifo =
        DeviceNode { kind: DeviceKind::Fifo, mode: 0o600, uid, gid, ..node("/dev/pipe", (0, 0), false) };
    make(&root, &fifo, None).unwrap();
    assert_eq!(mode("pipe"), 0o600);
    let place = root.place("/dev/pipe").unwrap();
    let dev = directory.path().join("dev");
    std::fs::write(dev.join("secret"), "").unwrap();
    std::fs::set_permissions(dev.join("secret"), std::fs::Permissions::from_mode(0o640)).unwrap();
    std::fs::rename(dev.join("pipe"), dev.join("moved")).unwrap();
    std::os::unix::fs::symlink("secret", dev.join("pipe")).unwrap();
    own(&place, &DeviceNode { mode: 0o666, ..fifo.clone() }).unwrap();
    assert_eq!([mode("moved"), mode("secret")], [0o666, 0o640]);
    // The link itself has no mode to change.
    let link = child(root.place("/dev").unwrap(), "pipe").unwrap();
    own(&link, &fifo).unwrap_err();
    assert_eq!(mode("secret"), 0o640);
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

fn node(path: &str, numbers: (u32, u32), by_name: bool) -> DeviceNode {
    let (major, minor) = numbers;
    let kind = DeviceKind::Char;
    DeviceNode { path: path.into(), kind, major, minor, by_name, mode: 0o666, uid: 0, gid: 0 }
}

#[test]
fn a_device_of_another_name_is_found_by_its_number() {
    assert_eq!(guest_path(&node("/dev/my-fuse", (10, 229), false)), "/dev/fuse");
    assert_eq!(guest_path(&node("/dev/zero", (1, 3), false)), "/dev/null");
    assert_eq!(guest_path(&node("/dev/userfaultfd", (10, 99), true)), "/dev/userfaultfd");
}

#[test]
fn a_device_that_is_meant_by_name_gets_the_guests_number_in_rules_too() {
    let rule = |major, minor| DeviceRule {
        allow: true,
        kind: Some(DeviceKind::Char),
        major: Some(major),
        minor,
        read: true,
        write: true,
        mknod: false,
    };
    let mut spec = crate::container::plan::tests::spec();
    spec.resources.devices = vec![rule(77, Some(1)), rule(77, Some(2)), rule(77, None)];
    assert!(matches!(renumbered(&spec), Ok(Cow::Borrowed(_))));
    // The null device stands for one that has no fixed number.
    spec.devices = vec![node("/dev/null", (77, 1), true), node("/dev/zero", (77, 2), false)];
    let own = renumbered(&spec).unwrap();
    assert_eq!([own.devices[0].major, own.devices[1].major], [1, 77]);
    assert_eq!(own.resources.devices, [rule(1, Some(3)), rule(77, Some(2)), rule(77, None)]);
    spec.devices = vec![node("/dev/absent", (77, 1), true)];
    let error = renumbered(&spec).unwrap_err().chain();
    assert_eq!(error, "look for the guest's device /dev/absent: no such file or directory");
}

#[test]
fn only_devices_of_the_guest_are_opened() {
    assert!(open_guest_node("/etc/passwd").is_none() && open_guest_node("/dev/absent").is_none());
}
