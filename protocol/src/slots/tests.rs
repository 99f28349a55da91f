use std::collections::BTreeSet;

use super::*;

#[test]
fn every_device_has_a_slot_of_its_own_and_none_is_left() {
    let fixed = [CONSOLE, VSOCK, FS, RNG, BALLOON, MEM];
    let disks = (0..DISKS).filter_map(disk);
    let taken: BTreeSet<u8> =
        fixed.into_iter().chain(disks).chain((0..NICS).filter_map(nic)).map(|slot| slot.0).collect();
    assert_eq!(taken, (0..SLOTS as u8).collect());
}

#[test]
fn there_is_no_disk_after_the_last() {
    assert_eq!(disk(0), Some(Slot(6)));
    assert_eq!(disk(DISKS - 1), Some(Slot(9)));
    assert_eq!(disk(DISKS), None);
    assert_eq!(disk(u8::MAX), None);
}

#[test]
fn the_last_network_has_the_last_slot_and_there_is_none_after_it() {
    assert_eq!(nic(NICS - 1), Some(Slot(SLOTS as u8 - 1)));
    assert_eq!(nic(NICS), None);
    assert_eq!(nic(u8::MAX), None);
}
