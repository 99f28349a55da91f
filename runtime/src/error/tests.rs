use super::*;

#[test]
fn the_chain_runs_from_the_step_to_the_first_cause_and_says_nothing_twice() {
    let cause = io::Error::from_raw_os_error(libc::ENOENT);
    let error =
        Error::from(SpecError::Read { path: "/b/config.json".into(), source: cause }).during("create web");
    assert_eq!(error.chain(), "create web: read /b/config.json: No such file or directory (os error 2)");
}

#[test]
fn a_hint_comes_through_the_steps() {
    let cause = io::Error::from_raw_os_error(libc::ENOENT);
    let error =
        Error::from(SpecError::Read { path: "/b/config.json".into(), source: cause }).during("create web");
    assert!(error.hint().unwrap().contains("bulkhead spec"));
}

#[test]
fn a_container_that_is_gone_is_one_error_whether_it_was_opened_or_undone() {
    let missing = || StateError::Missing { id: "web".parse().unwrap() };
    assert!(matches!(Error::from(UndoError::from(missing())), Error::State(StateError::Missing { .. })));
}
