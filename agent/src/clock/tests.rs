use super::*;

#[test]
fn small_differences_are_slewed_and_large_ones_stepped() {
    assert_eq!(Change::of(99_999_999), Change::Slew { microseconds: 99_999 });
    assert_eq!(Change::of(-99_999_999), Change::Slew { microseconds: -99_999 });
    assert_eq!(Change::of(100_000_000), Change::Step { seconds: 0, nanoseconds: 100_000_000 });
    assert_eq!(Change::of(0), Change::Slew { microseconds: 0 });
}

#[test]
fn a_step_back_has_the_fraction_that_the_kernel_wants() {
    assert_eq!(Change::of(-100_000_000), Change::Step { seconds: -1, nanoseconds: 900_000_000 });
    assert_eq!(Change::of(-2_000_000_000), Change::Step { seconds: -2, nanoseconds: 0 });
    let Change::Step { seconds, nanoseconds } = Change::of(i64::MIN) else { panic!("it is a step") };
    assert_eq!(i128::from(seconds) * 1_000_000_000 + i128::from(nanoseconds), i128::from(i64::MIN));
}
