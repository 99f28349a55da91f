use super::*;

#[test]
fn a_line_says_how_a_test_ended() {
    for (line, expected) in [
        ("test pod::it_works ... ok", Some(("pod::it_works", Outcome::Passed))),
        ("test boot::it_boots ... ok (1.2 s)", Some(("boot::it_boots", Outcome::Passed))),
        ("test pod::it_works ... FAILED", Some(("pod::it_works", Outcome::Failed))),
        ("test podman::tour ... ignored, there is no podman", Some(("podman::tour", Outcome::Ignored))),
        ("test docker::tour ... ignored", Some(("docker::tour", Outcome::Ignored))),
        ("test it_panics - should panic ... ok", Some(("it_panics", Outcome::Passed))),
        ("test pod::it_works ... ", None),
        ("test result: ok. 1 passed; 0 failed; 0 ignored", None),
        ("the test of it ... ok", None),
        ("test of a container ... ok", None),
    ] {
        assert_eq!(outcome(line), expected, "{line}");
    }
}

#[test]
fn the_last_line_has_the_counts() {
    let line =
        "test result: FAILED. 12 passed; 3 failed; 1 ignored; 0 measured; 7 filtered out; finished in 0.10s";
    assert_eq!(counts(line), Some(Counts { passed: 12, failed: 3, ignored: 1 }));
    let line = "test result: ok. 2 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out";
    assert_eq!(counts(line), Some(Counts { passed: 2, failed: 0, ignored: 0 }));
    for line in ["running 2 tests", "test result: ok. many passed; 0 failed", "test pod::it_works ... ok"] {
        assert_eq!(counts(line), None, "{line}");
    }
}

#[test]
fn a_list_names_tests_and_no_benchmarks() {
    assert_eq!(listed("pod::it_works: test"), Some("pod::it_works"));
    for line in ["pod::it_is_fast: benchmark", "", "3 tests, 0 benchmarks"] {
        assert_eq!(listed(line), None, "{line}");
    }
}
