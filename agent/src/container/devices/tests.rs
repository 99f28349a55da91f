use std::fs::File;

use tempfile::TempDir;

use bulkhead_protocol::container::DeviceRule;

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
    DeviceNode { path: path.into(), kind, major, minor, by_name, disk: None, mode: 0o666, uid: 0, gid: 0 }
}

fn none() -> Disks {
    Disks::new()
}

#[test]
fn a_device_of_another_name_is_found_by_its_number() {
    assert_eq!(guest_path(&node("/dev/my-fuse", (10, 229), false), &none()), "/dev/fuse");
    assert_eq!(guest_path(&node("/dev/zero", (1, 3), false), &none()), "/dev/null");
    assert_eq!(guest_path(&node("/dev/userfaultfd", (10, 99), true), &none()), "/dev/userfaultfd");
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
    assert!(matches!(renumbered(&spec, &none()), Ok(Cow::Borrowed(_))));
    // The null device stands for one that has no fixed number.
    spec.devices = vec![node("/dev/null", (77, 1), true), node("/dev/zero", (77, 2), false)];
    let own = renumbered(&spec, &none()).unwrap();
    assert_eq!([own.devices[0].major, own.devices[1].major], [1, 77]);
    assert_eq!(own.resources.devices, [rule(1, Some(3)), rule(77, Some(2)), rule(77, None)]);
    spec.devices = vec![node("/dev/absent", (77, 1), true)];
    let error = renumbered(&spec, &none()).unwrap_err().chain();
    assert_eq!(error, "look for the guest's device /dev/absent: no such file or directory");
}

#[test]
fn only_devices_of_the_guest_are_opened() {
    assert!(open_guest_node("/etc/passwd").is_none() && open_guest_node("/dev/absent").is_none());
}

fn disk(path: &str, numbers: (u32, u32), slot: Option<u8>) -> DeviceNode {
    DeviceNode { kind: DeviceKind::Block, disk: slot.map(Slot), ..node(path, numbers, false) }
}

#[test]
fn disks_get_the_guests_numbers_even_where_these_are_the_hosts_of_another() {
    let rule = |allow, kind, minor| DeviceRule {
        allow,
        kind,
        major: Some(254),
        minor,
        read: true,
        write: allow,
        mknod: false,
    };
    let block = Some(DeviceKind::Block);
    let mut spec = crate::container::plan::tests::spec();
    spec.devices = vec![
        disk("/dev/data", (254, 16), Some(6)),
        disk("/dev/log", (254, 0), Some(7)),
        node("/dev/zero", (254, 0), false),
    ];
    spec.resources.devices = vec![
        rule(true, block, Some(0)),
        rule(true, block, Some(16)),
        rule(false, None, Some(16)),
        rule(true, Some(DeviceKind::Char), Some(0)),
        rule(true, block, None),
    ];
    let device = |name: &str, minor| BlockDevice { name: name.into(), major: 254, minor };
    let disks = Disks::from([(Slot(6), device("vda", 0)), (Slot(7), device("vdb", 16))]);
    let own = renumbered(&spec, &disks).unwrap();
    assert_eq!(own.devices.iter().map(|node| node.minor).collect::<Vec<_>>(), [0, 16, 0]);
    assert_eq!(
        own.resources.devices,
        [
            rule(true, block, Some(16)),
            rule(true, block, Some(0)),
            rule(false, None, Some(0)),
            rule(true, Some(DeviceKind::Char), Some(0)),
            rule(true, block, None),
        ]
    );
    assert_eq!(guest_path(&own.devices[0], &disks), "/dev/vda");
    spec.devices = vec![disk("/dev/data", (7, 0), None)];
    let error = renumbered(&spec, &disks).unwrap_err().chain();
    let told = "look for the guest's device /dev/data: it is a disk of the host that the guest was not given";
    assert_eq!(error, told);
}
