use std::os::unix::fs::symlink;

use super::*;

/// A directory tree as sysfs has it, with slot 0 bound and slot 1 empty.
fn sysfs() -> (tempfile::TempDir, Sysfs) {
    let root = tempfile::tempdir().unwrap();
    let devices = root.path().join("bus/platform/devices");
    fs::create_dir_all(root.path().join("bus/platform/drivers/virtio-mmio")).unwrap();
    fs::create_dir_all(devices.join("virtio-mmio.0/virtio3")).unwrap();
    symlink("/", devices.join("virtio-mmio.0/virtio3/driver")).unwrap();
    fs::create_dir_all(devices.join("virtio-mmio.1")).unwrap();
    for cpu in 0..4 {
        fs::create_dir_all(root.path().join(format!("devices/system/cpu/cpu{cpu}"))).unwrap();
    }
    fs::write(root.path().join("devices/system/cpu/present"), "0-3\n").unwrap();
    fs::write(root.path().join("devices/system/cpu/online"), "0,3\n").unwrap();
    let sysfs = Sysfs(root.path().to_owned());
    (root, sysfs)
}

#[test]
fn a_bound_slot_is_fine_and_an_empty_one_is_not() {
    let (_root, sysfs) = sysfs();
    sysfs.bind(0).unwrap();
    // The write succeeds here as it does in the kernel when no driver takes the device.
    assert!(matches!(sysfs.bind(1), Err(HotplugError::NotBound { slot: 1 })));
    assert!(matches!(sysfs.bind(2), Err(HotplugError::NoSlot { slot: 2 })));
    assert!(matches!(sysfs.bind(limits::SLOTS as u32), Err(HotplugError::NoSlot { .. })));
}

#[test]
fn a_slot_that_is_not_bound_is_not_unbound_again() {
    let (root, sysfs) = sysfs();
    let asked = || fs::read_to_string(root.path().join("bus/platform/drivers/virtio-mmio/unbind")).ok();
    sysfs.unbind(0).unwrap();
    assert_eq!(asked(), None);
    symlink("/", root.path().join("bus/platform/devices/virtio-mmio.0/driver")).unwrap();
    sysfs.unbind(0).unwrap();
    assert_eq!(asked().as_deref(), Some("virtio-mmio.0"));
    assert!(matches!(sysfs.unbind(2), Err(HotplugError::NoSlot { slot: 2 })));
}

#[test]
fn a_disk_is_found_by_its_slot() {
    let (root, sysfs) = sysfs();
    assert!(matches!(sysfs.disk(0), Err(HotplugError::NoDisk { slot: 0 })));
    let block = root.path().join("bus/platform/devices/virtio-mmio.0/virtio3/block/vdb");
    fs::create_dir_all(&block).unwrap();
    fs::write(block.join("dev"), "254:16\n").unwrap();
    assert_eq!(sysfs.disk(0).unwrap(), BlockDevice { name: "vdb".into(), major: 254, minor: 16 });
    assert!(matches!(sysfs.disk(1), Err(HotplugError::NoDisk { slot: 1 })));
    assert!(matches!(sysfs.disk(2), Err(HotplugError::NoSlot { slot: 2 })));
}

#[test]
fn cpus_come_lowest_first_and_only_those_that_change_are_written() {
    let (root, sysfs) = sysfs();
    sysfs.set_online_cpus(2).unwrap();
    let state = |cpu: u32| {
        fs::read_to_string(root.path().join(format!("devices/system/cpu/cpu{cpu}/online")))
            .unwrap_or_default()
    };
    assert_eq!([state(0), state(1), state(2), state(3)], ["", "1", "", "0"]);
}

#[test]
fn no_cpu_at_all_and_more_than_there_are_are_refused() {
    let (_root, sysfs) = sysfs();
    assert!(matches!(sysfs.set_online_cpus(0), Err(HotplugError::Cpus { .. })));
    assert!(matches!(sysfs.set_online_cpus(5), Err(HotplugError::Cpus { wanted: 5, present: 4 })));
}
