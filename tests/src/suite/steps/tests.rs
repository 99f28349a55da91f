use super::*;

fn shell(script: &str) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", script]);
    command
}

#[test]
fn a_check_passes_or_fails_as_a_whole() {
    let mut tally = Tally::default();
    check(&mut tally, "good", &mut shell("exit 0"));
    check(&mut tally, "bad", &mut shell("exit 3"));
    check(&mut tally, "missing", &mut Command::new("/no/such/program"));
    let text = tally.to_string();
    assert!(text.contains("failed: bad (exit status: 3)") && text.contains("failed: missing ("), "{text}");
    assert!(text.ends_with("1 passed, 2 failed, 0 skipped"), "{text}");
}

#[test]
fn counts_of_several_programs_are_added() {
    let mut tally = Tally::default();
    let script = "echo 'test result: ok. 2 passed; 0 failed; 1 ignored; 0 measured'; \
        echo 'test result: FAILED. 3 passed; 1 failed; 0 ignored; 0 measured'; exit 101";
    tests(&mut tally, "unit tests", &mut shell(script));
    assert_eq!(tally.to_string(), "failed: unit tests (exit status: 101)\n5 passed, 1 failed, 1 skipped");
}

#[test]
fn programs_of_test_targets_are_told_from_other_artifacts() {
    let artifact = |kind: &str, executable: &str| {
        format!(
            r#"{{"reason":"compiler-artifact","target":{{"kind":["{kind}"],"name":"e2e"}},"executable":{executable}}}"#
        )
    };
    let expected = Some(("e2e".to_owned(), PathBuf::from("/target/e2e-0")));
    assert_eq!(test_program(&artifact("test", r#""/target/e2e-0""#)), expected);
    assert_eq!(test_program(&artifact("lib", r#""/target/lib-0""#)), None);
    assert_eq!(test_program(&artifact("test", "null")), None);
    assert_eq!(test_program(r#"{"reason":"build-finished","success":true}"#), None);
}
