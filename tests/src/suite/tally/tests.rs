use super::*;

#[test]
fn the_last_line_has_the_counts_and_those_before_it_the_names() {
    let mut tally = Tally::default();
    tally.pass();
    tally.skip("audit: there is no cargo-deny");
    tally.add("unit tests", Counts { passed: 10, failed: 0, ignored: 2 }, true);
    tally.record(Record {
        passed: 3,
        ignored: 1,
        failed: vec!["pod::broken".into()],
        second: vec!["pod::shaky".into()],
    });
    assert!(!tally.succeeded());
    let expected = "skipped: audit: there is no cargo-deny
passed at the second try only: pod::shaky
failed: pod::broken
14 passed, 1 failed, 4 skipped";
    assert_eq!(tally.to_string(), expected);
}

#[test]
fn a_command_that_fails_without_a_failed_test_is_a_failure() {
    let mut tally = Tally::default();
    tally.add("unit tests", Counts::default(), false);
    assert_eq!(tally.to_string(), "failed: unit tests\n0 passed, 1 failed, 0 skipped");
    tally.add("more tests", Counts { passed: 1, failed: 2, ignored: 0 }, false);
    assert!(tally.to_string().ends_with("\n1 passed, 3 failed, 0 skipped"));
}
