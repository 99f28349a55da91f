use super::*;
use crate::sandbox::test_process;

/// A line of proc(5)'s limits: the name has 26 columns.
fn told(name: &str) -> Vec<String> {
    let text = std::fs::read_to_string("/proc/self/limits").unwrap();
    let line = text.lines().find(|line| line.starts_with(name)).unwrap();
    line[26..].split_whitespace().take(2).map(str::to_owned).collect()
}

#[test]
fn what_a_process_does_not_set_is_the_callers() {
    let mut process = test_process(&["true"]);
    process.rlimits = vec![Rlimit { resource: 4, soft: 1, hard: 2 }];
    inherit_limits(&mut process);
    let kinds: Vec<u32> = process.inherited_rlimits.iter().map(|limit| limit.resource).collect();
    assert_eq!(kinds, (0..16).filter(|kind| *kind != 4).collect::<Vec<_>>());
    let names =
        [(0, "Max cpu time"), (3, "Max stack size"), (7, "Max open files"), (15, "Max realtime timeout")];
    for (kind, name) in names {
        let limit = process.inherited_rlimits.iter().find(|limit| limit.resource == kind).unwrap();
        let text = |value: u64| if value == u64::MAX { "unlimited".to_owned() } else { value.to_string() };
        assert_eq!([text(limit.soft), text(limit.hard)], *told(name), "{name}");
    }
}
