use super::is_frozen;

#[test]
fn the_event_file_says_whether_all_is_frozen() {
    assert!(is_frozen("populated 1\nfrozen 1\n"));
    assert!(!is_frozen("populated 1\nfrozen 0\n"));
    assert!(!is_frozen(""));
}
