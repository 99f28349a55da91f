use super::*;

#[test]
fn cpu_lists_are_read_as_the_kernel_writes_them() {
    assert_eq!(cpu_list("0-2,5\n"), Some(vec![0, 1, 2, 5]));
    assert_eq!(cpu_list("0\n"), Some(vec![0]));
    assert_eq!(cpu_list("\n"), None);
    assert_eq!(cpu_list("0-x"), None);
}

#[test]
fn memory_is_reported_in_bytes() {
    let text = "MemTotal:         128 kB\nMemFree:           1 kB\nMemAvailable:     64 kB\n";
    assert_eq!(meminfo(text, "MemTotal"), Some(128 * 1024));
    assert_eq!(meminfo(text, "MemAvailable"), Some(64 * 1024));
    assert_eq!(meminfo(text, "Mem"), None);
}

#[test]
fn entropy_is_credited_in_bits_and_padded_to_ints() {
    let words = pool_info(&[1, 2, 3, 4, 5]);
    assert_eq!(words, [40, 5, u32::from_ne_bytes([1, 2, 3, 4]), u32::from_ne_bytes([5, 0, 0, 0])]);
}

#[test]
fn too_much_entropy_is_refused() {
    let too_much = vec![0; limits::ENTROPY + 1];
    assert!(matches!(add_entropy(&too_much), Err(GuestError::TooMuchEntropy { .. })));
}
