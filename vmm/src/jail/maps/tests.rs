use super::*;

#[test]
fn every_extent_is_mapped_on_itself() {
    assert_eq!(identity("         0          0 4294967295\n"), "0 0 4294967295\n");
    assert_eq!(identity("0 100000 1000\n1000 200000 5\n"), "0 0 1000\n1000 1000 5\n");
    assert_eq!(identity(""), "");
}
