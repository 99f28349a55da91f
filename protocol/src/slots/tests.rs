use std::collections::BTreeSet;

use super::*;

#[test]
fn every_device_has_a_slot_of_its_own_and_four_are_left_for_disks() {
    let fixed = [CONSOLE, VSOCK, FS, RNG, BALLOON, MEM];
    let taken: BTreeSet<u8> = fixed.into_iter().chain((0..NICS).filter_map(nic)).map(|slot| slot.0).collect();
    assert_eq!(taken.len(), fixed.len() + usize::from(NICS));
    let free: Vec<u8> = (0..SLOTS as u8).filter(|slot| !taken.contains(slot)).collect();
    assert_eq!(free, [6, 7, 8, 9]);
}

#[test]
fn the_last_network_has_the_last_slot_and_there_is_none_after_it() {
    assert_eq!(nic(NICS - 1), Some(Slot(SLOTS as u8 - 1)));
    assert_eq!(nic(NICS), None);
    assert_eq!(nic(u8::MAX), None);
}
