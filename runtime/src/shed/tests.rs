use std::{fs::File, os::fd::AsRawFd as _, process::Command};

use super::*;

/// Whether a program that is started now has the descriptor.
fn is_passed_on(file: &File) -> bool {
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    Command::new("test").args(["-e", &path]).status().unwrap().success()
}

fn inheritable() -> File {
    let file = File::open("/dev/null").unwrap();
    rustix::io::fcntl_setfd(&file, FdFlags::empty()).unwrap();
    file
}

#[test]
fn descriptors_of_the_caller_are_kept_from_programs_and_stay_open_here() {
    for shed in [|| descriptors().map_err(|error| error.source), one_by_one] {
        let file = inheritable();
        assert!(is_passed_on(&file));
        shed().unwrap();
        assert!(!is_passed_on(&file));
        file.metadata().unwrap();
    }
}
