use super::*;

#[test]
fn a_failed_step_names_step_object_and_cause_once_each() {
    let error = Err::<(), _>(rustix::io::Errno::INVAL).during("mount tmpfs on", "/dev/shm").unwrap_err();
    assert_eq!(error.to_string(), "mount tmpfs on /dev/shm");
    assert_eq!(error.chain(), "mount tmpfs on /dev/shm: invalid argument");
}

#[test]
fn a_missing_program_reads_as_callers_match_it() {
    let error = ContainerError::Program {
        program: "foo".into(),
        problem: "executable file not found in $PATH".into(),
    };
    assert_eq!(error.chain(), r#"exec: "foo": executable file not found in $PATH"#);
}

#[test]
fn an_error_survives_the_way_to_the_agent() {
    let error = Err::<(), _>("too far").during("open", "x").unwrap_err();
    let json = serde_json::to_string(&error).unwrap();
    assert_eq!(serde_json::from_str::<ContainerError>(&json).unwrap(), error);
}

#[test]
fn an_endless_name_is_cut() {
    let error = Err::<(), _>("no").during("open", "é".repeat(100_000)).unwrap_err();
    assert!(error.chain().len() < 5000);
}
