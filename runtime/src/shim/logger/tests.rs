use std::{
    fs::{self, File},
    io::Write as _,
    os::unix::fs::PermissionsExt as _,
    path::Path,
};

use super::*;

fn script(directory: &Path, text: &str) -> Logger {
    let path = directory.join("logger");
    fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).unwrap();
    Logger::parse(&format!("{}?to={}/log&flag", path.display(), directory.display()))
}

#[test]
fn a_query_becomes_arguments() {
    let logger = Logger::parse("/usr/bin/a%20logger?path=/var/log/a%2Bb&words=one+two&flag&empty=&odd=%zz");
    assert_eq!(logger.program, Path::new("/usr/bin/a logger"));
    let words = ["path", "/var/log/a+b", "words", "one two", "flag", "empty", "odd", "%zz"];
    assert_eq!(logger.arguments, words);
    assert_eq!(Logger::parse("/bin/cat"), Logger { program: "/bin/cat".into(), arguments: Vec::new() });
}

#[test]
fn a_logger_reads_both_outputs_and_knows_whose_they_are() {
    let directory = tempfile::tempdir().unwrap();
    let logger = script(
        directory.path(),
        "exec 5>&-; { cat <&3; cat <&4; echo $CONTAINER_NAMESPACE $CONTAINER_ID $3; } >$2; mv $2 $2.done",
    );
    // Of an exec that a test beside this one makes, the file may still be open.
    let outputs = loop {
        match logger.start("web", "k8s.io") {
            Err(error) if error.kind() == io::ErrorKind::ExecutableFileBusy => {}
            other => break other.unwrap(),
        }
    };
    File::from(outputs.stdout).write_all(b"out\n").unwrap();
    File::from(outputs.stderr).write_all(b"err\n").unwrap();
    let done = directory.path().join("log.done");
    while !done.exists() {
        std::thread::yield_now();
    }
    assert_eq!(fs::read_to_string(done).unwrap(), "out\nerr\nk8s.io web flag\n");
}

#[test]
fn a_logger_that_is_not_there_is_an_error() {
    assert!(Logger::parse("/nowhere/logger").start("web", "k8s.io").is_err());
}
