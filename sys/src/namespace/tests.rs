use std::{fs::File, process::Command};

use super::*;

#[test]
fn a_namespace_of_another_kind_is_refused() {
    let uts = File::open("/proc/self/ns/uts").unwrap();
    let error = visit_network(&uts, || ()).unwrap_err();
    assert!(matches!(error.raw_os_error(), Some(libc::EINVAL | libc::EPERM)), "{error}");
}

#[test]
fn work_that_panics_is_an_error_of_the_visit() {
    // Entering nothing, so that it needs no capability.
    let error = visit("test", || Ok(()), || panic!("on purpose")).unwrap_err();
    assert!(error.to_string().contains("panicked"), "{error}");
    assert_eq!(visit("test", || Ok(()), || 7).unwrap(), 7);
}

#[test]
fn the_first_child_in_a_new_pid_namespace_is_its_pid_1_and_later_ones_are_in_ours() {
    let pid = || {
        let said = Command::new("sh").args(["-c", "echo $$"]).output().unwrap().stdout;
        String::from_utf8(said).unwrap().trim().to_owned()
    };
    match with_children_in_new_pid_namespace(pid) {
        Ok(first) => assert_eq!(first, "1"),
        Err(error) => assert_eq!(error.kind(), io::ErrorKind::PermissionDenied),
    }
    assert_ne!(pid(), "1");
}
