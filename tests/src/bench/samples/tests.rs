use super::*;

#[test]
fn the_median_is_the_middle_of_the_sorted() {
    assert!((Samples(vec![9.0, 1.0, 5.0]).median() - 5.0).abs() < 1e-9);
    assert!((Samples(vec![4.0, 1.0, 3.0, 2.0]).median() - 2.5).abs() < 1e-9);
    assert!(Samples::default().median().is_nan());
}

#[test]
fn ratios_are_taken_round_by_round() {
    let ratio = Samples(vec![2.0, 8.0]).ratio(&Samples(vec![1.0, 2.0]));
    assert_eq!(ratio.0, [2.0, 4.0]);
}

#[test]
fn a_control_that_slows_down_drifts() {
    assert!(Samples(vec![1.0, 1.0, 1.3, 1.3]).drift() > 0.29);
    assert!(Samples(vec![1.0, 1.1, 1.0, 1.1]).drift() < 0.01);
}
