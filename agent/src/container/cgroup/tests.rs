use std::collections::BTreeMap;

use super::*;

fn written(resources: &Resources) -> Vec<(String, String)> {
    files(resources).unwrap()
}

fn pair(file: &str, value: &str) -> (String, String) {
    (file.to_owned(), value.to_owned())
}

#[test]
fn nothing_asked_for_writes_nothing() {
    assert!(written(&Resources::default()).is_empty());
}

#[test]
fn limits_become_files_in_an_order_that_works() {
    let resources = Resources {
        memory_max: Some(Limit::Value(64 << 20)),
        memory_swap_max: Some(Limit::Value(0)),
        cpu_quota: Some(Limit::Value(50_000)),
        cpu_period: Some(100_000),
        pids_max: Some(Limit::Max),
        unified: BTreeMap::from([("memory.high".to_owned(), "1G".to_owned())]),
        ..Resources::default()
    };
    assert_eq!(
        written(&resources),
        [
            pair("memory.swap.max", "0"),
            pair("memory.max", "67108864"),
            pair("cpu.max", "50000 100000"),
            pair("pids.max", "max"),
            pair("memory.high", "1G"),
        ]
    );
}

#[test]
fn a_period_without_a_quota_keeps_the_cpu_unlimited() {
    let resources = Resources { cpu_period: Some(20_000), ..Resources::default() };
    assert_eq!(written(&resources), [pair("cpu.max", "max 20000")]);
}

#[test]
fn a_unified_key_cannot_leave_the_cgroup_or_move_processes() {
    for key in ["../memory.max", "memory/max", "cgroup.procs", "cgroup.kill", "memory", ".max", "memory.", ""]
    {
        let unified = BTreeMap::from([(key.to_owned(), "1".to_owned())]);
        assert!(files(&Resources { unified, ..Resources::default() }).is_err(), "{key}");
    }
}

#[test]
fn the_count_of_kills_is_not_taken_from_a_longer_name() {
    assert_eq!(event("oom 9\noom_kill 3\noom_group_kill 7\n", "oom_kill"), 3);
    assert_eq!(event("oom_kill_x 3\n", "oom_kill"), 0);
}
