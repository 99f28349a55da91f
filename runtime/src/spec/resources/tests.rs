use serde_json::{Value, json};

use super::super::fixture::{Fixture, bundle};
use super::*;

fn with(name: &str, value: Value) -> Fixture {
    bundle().set(&format!("linux.resources.{name}"), value)
}

fn resources(name: &str, value: Value) -> Resources {
    with(name, value).guest().resources
}

#[test]
fn shares_become_a_weight_by_the_current_formula() {
    let known = [(1, 1), (2, 1), (1024, 100), (262_143, 10_000), (262_144, 10_000), (u64::MAX, 10_000)];
    for (shares, weight) in known {
        assert_eq!(weight_of(shares), weight, "{shares}");
    }
    assert!((2..262_144).step_by(97).collect::<Vec<u64>>().is_sorted_by_key(|shares| weight_of(*shares)));
    assert_eq!(resources("cpu", json!({"shares": 1024})).cpu_weight, Some(100));
    assert_eq!(resources("cpu", json!({"shares": 0})).cpu_weight, None);
}

#[test]
fn memory_limits_are_taken() {
    let memory = resources("memory", json!({"limit": 1 << 20, "reservation": 4096}));
    assert_eq!(memory.memory_max, Some(Limit::Value(1 << 20)));
    assert_eq!(memory.memory_low, Some(Limit::Value(4096)));
    assert_eq!(memory.memory_swap_max, None);
    let unset = resources("memory", json!({"limit": 0, "reservation": null, "swap": 0}));
    assert_eq!((unset.memory_max, unset.memory_low, unset.memory_swap_max), (None, None, None));
}

#[test]
fn a_negative_limit_other_than_minus_one_is_refused() {
    assert_eq!(resources("memory", json!({"limit": -1})).memory_max, Some(Limit::Max));
    let refusal = with("memory", json!({"limit": -2})).refusal();
    assert_eq!(refusal, "linux.resources.memory.limit: -2 is negative (-1 is no limit)");
    let refusal = with("memory", json!({"reservation": -2})).refusal();
    assert_eq!(refusal, "linux.resources.memory.reservation: -2 is negative (-1 is no limit)");
}

#[test]
fn swap_is_what_the_sum_leaves_above_memory() {
    let swap = |value| resources("memory", value).memory_swap_max;
    assert_eq!(swap(json!({"limit": 100, "swap": 150})), Some(Limit::Value(50)));
    assert_eq!(swap(json!({"limit": 100, "swap": 100})), Some(Limit::Value(0)));
    assert_eq!(swap(json!({"limit": 100, "swap": -1})), Some(Limit::Max));
    assert_eq!(swap(json!({"limit": -1})), Some(Limit::Max));
    let refusal = with("memory", json!({"limit": 100, "swap": 99})).refusal();
    assert_eq!(refusal, "linux.resources.memory.swap: 99 is below memory.limit 100, which it includes");
    let refusal = with("memory", json!({"swap": 99})).refusal();
    assert_eq!(refusal, "linux.resources.memory.swap: needs memory.limit, which it includes");
}

#[test]
fn keys_of_cgroup1_are_warnings_but_for_the_oom_killer() {
    let spec =
        with("memory", json!({"kernel": 1, "kernelTCP": 1, "swappiness": 60, "disableOOMKiller": false}));
    assert_eq!(spec.warnings().len(), 3);
    assert!(spec.warnings()[2].starts_with("linux.resources.memory.swappiness "));
    let refusal = with("memory", json!({"disableOOMKiller": true})).refusal();
    assert!(refusal.starts_with("linux.resources.memory.disableOOMKiller is not supported: "));
}

#[test]
fn cpu_bandwidth_is_taken() {
    let cpu = resources("cpu", json!({"quota": 50_000, "period": 100_000, "burst": 10, "idle": 1}));
    assert_eq!((cpu.cpu_quota, cpu.cpu_period), (Some(Limit::Value(50_000)), Some(100_000)));
    assert_eq!((cpu.cpu_burst, cpu.cpu_idle), (Some(10), Some(true)));
    for none in [-1, -5, i64::MIN] {
        assert_eq!(resources("cpu", json!({"quota": none})).cpu_quota, Some(Limit::Max));
    }
    let unset = resources("cpu", json!({"quota": 0, "period": 0, "idle": 0, "realtimeRuntime": 0}));
    assert_eq!((unset.cpu_quota, unset.cpu_period, unset.cpu_idle), (None, None, Some(false)));
}

#[test]
fn a_bad_cpu_value_is_refused_by_name() {
    let refusal = with("cpu", json!({"idle": 2})).refusal();
    assert_eq!(refusal, "linux.resources.cpu.idle: 2 is neither 0 nor 1");
    let refusal = with("cpu", json!({"shares": -1})).refusal();
    assert!(refusal.starts_with("linux.resources.cpu.shares: invalid value: integer `-1`"), "{refusal}");
    for name in ["realtimeRuntime", "realtimePeriod"] {
        let refusal = with(&format!("cpu.{name}"), json!(1)).refusal();
        let reason = "cgroup2 has no limits for realtime processes";
        assert_eq!(refusal, format!("linux.resources.cpu.{name} is not supported: {reason}"));
    }
}

#[test]
fn a_pids_limit_of_zero_is_a_limit() {
    assert_eq!(resources("pids", json!({"limit": 0})).pids_max, Some(Limit::Value(0)));
    assert_eq!(resources("pids", json!({"limit": -1})).pids_max, Some(Limit::Max));
    assert_eq!(resources("pids", json!({"limit": 100})).pids_max, Some(Limit::Value(100)));
    assert_eq!(resources("pids", json!({})).pids_max, None);
    let refusal = with("pids", json!({"limit": -2})).refusal();
    assert_eq!(refusal, "linux.resources.pids.limit: -2 is negative (-1 is no limit)");
}

#[test]
fn minus_one_is_no_limit_also_where_there_is_none() {
    let spec =
        with("memory", json!({"limit": -1, "reservation": -1, "swap": -1, "kernel": -1, "kernelTCP": -1}));
    let memory = spec.guest().resources;
    let no_limit = Some(Limit::Max);
    assert_eq!(
        (memory.memory_max, memory.memory_low, memory.memory_swap_max),
        (no_limit, no_limit, no_limit)
    );
    assert_eq!(spec.warnings(), [""; 0]);
    let cpu = with("cpu", json!({"quota": -1, "realtimeRuntime": -1}));
    assert_eq!(cpu.guest().resources.cpu_quota, no_limit);
}

#[test]
fn unified_takes_files_of_controllers_only() {
    let taken = resources("unified", json!({"memory.high": "1000", "io.weight": "default 50"})).unified;
    assert_eq!(taken["memory.high"], "1000");
    let bad = ["cgroup.procs", "memory", "memory.", "memory./x", "../memory.max", "cpu.x/../../y", "foo.bar"];
    for key in bad {
        let refusal = with("unified", json!({key: "1"})).refusal();
        assert!(
            refusal.starts_with(&format!("linux.resources.unified[{key:?}]: is not a file")),
            "{refusal}"
        );
    }
    let refusal = with("unified", json!({"memory.high": "x".repeat(4097)})).refusal();
    assert!(refusal.ends_with("4097 bytes are more than 4096"), "{refusal}");
}

#[test]
fn a_check_before_an_update_is_passed_on() {
    assert!(resources("memory", json!({"checkBeforeUpdate": true})).memory_check_before_update);
    assert!(!resources("memory", json!({"checkBeforeUpdate": null})).memory_check_before_update);
}

#[test]
fn the_weight_of_block_io_holds_in_the_guest_too() {
    assert_eq!(resources("blockIO", json!({"weight": 500})).io_weight, Some(4950));
}

#[test]
fn huge_pages_of_the_architectures_sizes_are_limited() {
    let limits = resources("hugepageLimits", json!([{"pageSize": "2MB", "limit": 0}])).hugetlb_max;
    assert_eq!(limits, BTreeMap::from([("2MB".to_owned(), Limit::Value(0))]));
    let refusal = with("hugepageLimits", json!([{"pageSize": "64KB", "limit": 1}])).refusal();
    assert_eq!(refusal, "linux.resources.hugepageLimits[0].pageSize: \"64KB\" is not one of 2MB, 1GB");
    let one = json!({"pageSize": "1GB", "limit": 1});
    let refusal = with("hugepageLimits", json!([one, one])).refusal();
    assert_eq!(refusal, "linux.resources.hugepageLimits[1].pageSize: 1GB is given twice");
}

#[test]
fn what_only_cgroup1_or_the_host_has_is_refused_unless_it_asks_for_nothing() {
    let parts = [
        ("network", json!({"classID": 1}), json!({"classID": 0, "priorities": []})),
        ("rdma", json!({"mlx5_1": {"hcaHandles": 3}}), json!({})),
    ];
    for (name, asks, empty) in parts {
        let refusal = with(name, asks).refusal();
        assert!(refusal.starts_with(&format!("linux.resources.{name} is not supported: ")), "{refusal}");
        with(name, empty).load().unwrap();
        with(name, json!(null)).load().unwrap();
    }
}
