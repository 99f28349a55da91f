use super::*;

#[test]
fn a_process_that_has_been_reaped_already_is_known_as_ended() {
    let mut short = Command::new("true").spawn().unwrap();
    short.wait().unwrap();
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), short.id().to_string()).unwrap();
    let process = read_process(file.path()).unwrap();
    assert_eq!(process.pid, short.id());
    assert!(!process.is_alive());
    assert!(process.pidfd().unwrap().is_none());

    fs::write(file.path(), std::process::id().to_string()).unwrap();
    assert!(read_process(file.path()).unwrap().is_alive());
    fs::write(file.path(), "").unwrap();
    assert!(read_process(file.path()).is_err());
}
