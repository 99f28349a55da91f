use super::*;

fn limit(kind: &str, soft: u64, hard: u64) -> raw::Rlimit {
    raw::Rlimit { kind: kind.into(), soft, hard }
}

fn refusal(raw: &[raw::Rlimit]) -> String {
    parse(raw).unwrap_err().to_string()
}

#[test]
fn numbers_are_those_of_the_kernel() {
    assert_eq!(number("RLIMIT_CPU"), Some(libc::RLIMIT_CPU));
    assert_eq!(number("RLIMIT_CORE"), Some(libc::RLIMIT_CORE));
    assert_eq!(number("RLIMIT_NPROC"), Some(libc::RLIMIT_NPROC));
    assert_eq!(number("RLIMIT_NOFILE"), Some(libc::RLIMIT_NOFILE));
    assert_eq!(number("RLIMIT_AS"), Some(libc::RLIMIT_AS));
    assert_eq!(number("RLIMIT_RTTIME"), Some(libc::RLIMIT_RTTIME));
}

#[test]
fn limits_keep_their_order_and_values() {
    let limits = parse(&[limit("RLIMIT_NOFILE", 1024, u64::MAX), limit("RLIMIT_CORE", 0, 0)]).unwrap();
    assert_eq!(limits[0], Rlimit { resource: 7, soft: 1024, hard: u64::MAX });
    assert_eq!(limits[1], Rlimit { resource: 4, soft: 0, hard: 0 });
}

#[test]
fn an_unknown_kind_is_refused() {
    assert_eq!(
        refusal(&[limit("RLIMIT_FOO", 0, 0)]),
        "process.rlimits[0]: \"RLIMIT_FOO\" is not a resource limit"
    );
    assert_eq!(refusal(&[limit("NOFILE", 0, 0)]), "process.rlimits[0]: \"NOFILE\" is not a resource limit");
}

#[test]
fn a_kind_given_twice_is_refused() {
    let twice = [limit("RLIMIT_CORE", 0, 0), limit("RLIMIT_CORE", 1, 1)];
    assert_eq!(refusal(&twice), "process.rlimits[1]: RLIMIT_CORE is given twice");
}

#[test]
fn a_soft_limit_above_the_hard_one_is_refused() {
    assert_eq!(refusal(&[limit("RLIMIT_CORE", 2, 1)]), "process.rlimits[0]: soft 2 is above hard 1");
}
