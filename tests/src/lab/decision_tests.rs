use std::os::unix::process::ExitStatusExt;
use std::process::{ExitStatus, Output};

use super::*;

fn probe(code: i32, stdout: &str, stderr: &str) -> std::io::Result<Output> {
    let status = ExitStatus::from_raw(code << 8);
    Ok(Output { status, stdout: stdout.into(), stderr: stderr.into() })
}

#[test]
fn a_probe_that_ran_guest_code_chooses_kvm_and_is_quoted() {
    let decided = judge(probe(0, "/dev/kvm runs stock guests\n", ""));
    assert_eq!(decided.to_string(), "kvm: /dev/kvm runs stock guests");
}

#[test]
fn a_probe_that_failed_chooses_the_lab_and_gives_its_reason() {
    let decided = judge(probe(1, "", "internal error, suberror 1\nmore\n"));
    assert_eq!(decided.to_string(), "lab: internal error, suberror 1");
}

#[test]
fn a_probe_that_was_killed_in_silence_chooses_the_lab() {
    let decided = judge(probe(137, "", ""));
    assert_eq!(decided.to_string(), "lab: the probe of /dev/kvm said nothing");
}
