use std::fs::File;

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
