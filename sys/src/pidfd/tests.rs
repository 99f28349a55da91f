use std::{os::fd::AsFd as _, process::Command};

use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::*;

#[test]
fn a_number_counts_only_while_its_process_lives() {
    let mut child = Command::new("sleep").arg("1000").spawn().unwrap();
    let pidfd = pidfd_open(Pid::from_child(&child), PidfdFlags::empty()).unwrap();
    assert_eq!(by_number(child.id(), pidfd.as_fd(), |pid| pid).unwrap(), child.id());
    let gone = |answer: io::Result<()>| answer.unwrap_err().raw_os_error() == Some(libc::ESRCH);
    // It ends while it is looked at.
    let ended = by_number(child.id(), pidfd.as_fd(), |_| {
        child.kill().unwrap();
        poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], None).unwrap();
    });
    assert!(gone(ended));
    // And then nobody is even asked: the number may be another's.
    assert!(gone(by_number(std::process::id(), pidfd.as_fd(), |_| panic!("it was asked"))));
    // Another test's reaper may have been quicker.
    let _ = child.wait();
}
