use super::*;

const ALL: u64 = (1 << 41) - 1;

fn same(bits: u64) -> Capabilities {
    Capabilities { bounding: bits, effective: bits, inheritable: bits, permitted: bits, ambient: bits }
}

#[test]
fn what_can_be_granted_is_granted_whole() {
    assert_eq!(grant(same(0b1010), ALL, ALL), Granted { sets: same(0b1010), missing: 0 });
}

#[test]
fn what_the_kernel_does_not_know_is_left_out_and_told() {
    let granted = grant(same(1 << 60 | 0b1), ALL, ALL);
    assert_eq!(granted, Granted { sets: same(0b1), missing: 1 << 60 });
}

#[test]
fn ambient_needs_permitted_and_inheritable() {
    let wanted = Capabilities { inheritable: 0b01, permitted: 0b11, effective: 0, ..same(0b111) };
    let granted = grant(wanted, ALL, ALL);
    assert_eq!(granted.sets.ambient, 0b01);
    assert_eq!(granted.missing, 0b110);
}

#[test]
fn sets_that_contradict_each_other_are_left_to_the_kernel() {
    let wanted = Capabilities { bounding: 0b01, effective: 0b111, permitted: 0b10, ..same(0b11) };
    let granted = grant(wanted, ALL, ALL);
    assert_eq!((granted.sets.effective, granted.sets.inheritable), (0b111, 0b11));
}

#[test]
fn each_bit_comes_once() {
    let bits: Vec<u64> = each(0b1001).map(|bit| bit.bits()).collect();
    assert_eq!(bits, [1, 8]);
}
