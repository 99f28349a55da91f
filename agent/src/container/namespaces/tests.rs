use std::os::fd::AsFd as _;

use rustix::{
    event::{PollFd, PollFlags, poll},
    process::{PidfdFlags, pidfd_open},
};

use super::*;

#[test]
fn we_are_in_none_but_our_own_namespaces() {
    let own = pidfd_open(rustix::process::getpid(), PidfdFlags::empty()).unwrap();
    assert_eq!(foreign(std::process::id(), own.as_fd()).unwrap(), 0);
}

#[test]
fn a_process_that_has_ended_is_in_no_namespaces_whoever_has_its_number_now() {
    let mut child = std::process::Command::new("true").spawn().unwrap();
    let pidfd = pidfd_open(rustix::process::Pid::from_child(&child), PidfdFlags::empty()).unwrap();
    poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], None).unwrap();
    let own = std::process::id();
    let error = foreign(own, pidfd.as_fd()).unwrap_err();
    assert_eq!(error.chain(), format!("read namespaces of process {own}: no such process"));
    // Another test's reaper may have been quicker.
    let _ = child.wait();
}

#[test]
fn each_namespace_has_its_own_bit() {
    let all = FILES.iter().fold(0, |bits, (_, kind)| bits | bit(*kind));
    assert_eq!(all.count_ones() as usize, FILES.len());
}
