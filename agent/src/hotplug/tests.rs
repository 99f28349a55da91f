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
