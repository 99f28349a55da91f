use std::fs::File;

use super::*;

#[test]
fn nothing_to_change_asks_the_kernel_nothing() {
    // A file of procfs is no root of a mount, which the kernel would refuse.
    Attributes::default().apply(File::open("/proc/self/stat").unwrap()).unwrap();
}

#[test]
fn a_descriptor_that_is_not_the_root_of_a_mount_is_refused() {
    let errno = Attributes::read_only().apply(File::open("/proc/self/stat").unwrap()).unwrap_err();
    // EPERM where the test has no CAP_SYS_ADMIN.
    assert!(matches!(errno, Errno::INVAL | Errno::PERM), "{errno}");
}
