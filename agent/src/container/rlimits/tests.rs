use super::*;

fn limit(resource: u32) -> Rlimit {
    Rlimit { resource, soft: 1, hard: 2 }
}

#[test]
fn a_limit_given_twice_is_refused() {
    assert!(check(&[limit(7), limit(3)]).is_ok());
    assert_eq!(check(&[limit(7), limit(7)]).unwrap_err().chain(), "resource limit 7 is given twice");
}

#[test]
fn a_limit_the_kernel_does_not_know_is_refused() {
    assert!(check(&[limit(16)]).is_err());
}
