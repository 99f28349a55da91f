use super::*;

fn at(seconds: u64) -> String {
    rfc3339(UNIX_EPOCH + Duration::from_secs(seconds))
}

#[test]
fn known_moments_read_as_date_prints_them() {
    assert_eq!(at(0), "1970-01-01T00:00:00.000000000Z");
    assert_eq!(at(951_782_400), "2000-02-29T00:00:00.000000000Z");
    assert_eq!(at(1_709_251_199), "2024-02-29T23:59:59.000000000Z");
    assert_eq!(at(1_709_251_200), "2024-03-01T00:00:00.000000000Z");
    assert_eq!(at(4_107_542_399), "2100-02-28T23:59:59.000000000Z");
    assert_eq!(at(4_107_542_400), "2100-03-01T00:00:00.000000000Z");
}

#[test]
fn nanoseconds_keep_their_leading_zeros() {
    assert_eq!(rfc3339(UNIX_EPOCH + Duration::from_nanos(42)), "1970-01-01T00:00:00.000000042Z");
}

#[test]
fn a_clock_before_1970_reads_as_1970() {
    assert_eq!(rfc3339(UNIX_EPOCH - Duration::from_secs(1)), at(0));
}
