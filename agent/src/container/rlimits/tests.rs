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

#[test]
fn inherited_open_files_are_cut_to_what_the_kernel_takes() {
    let files = |soft, hard| Rlimit { resource: NOFILE, soft, hard };
    assert_eq!(within(files(1024, u64::MAX), 1 << 20), files(1024, 1 << 20));
    assert_eq!(within(files(1 << 30, 1 << 30), 1 << 20), files(1 << 20, 1 << 20));
    assert_eq!(within(files(10, 20), 1 << 20), files(10, 20));
    let locked = Rlimit { resource: 8, soft: u64::MAX, hard: u64::MAX };
    assert_eq!(within(locked, 1 << 20), locked);
}
