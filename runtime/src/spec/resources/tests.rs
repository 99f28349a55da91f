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
    assert_eq!(resources("cpu", json!({"quota": -1})).cpu_quota, Some(Limit::Max));
    let unset =
        resources("cpu", json!({"quota": 0, "period": 0, "idle": 0, "cpus": "", "realtimeRuntime": 0}));
    assert_eq!((unset.cpu_quota, unset.cpu_period, unset.cpu_idle), (None, None, Some(false)));
}

#[test]
fn a_bad_cpu_value_is_refused_by_name() {
    let refusal = with("cpu", json!({"idle": 2})).refusal();
    assert_eq!(refusal, "linux.resources.cpu.idle: 2 is neither 0 nor 1");
    let refusal = with("cpu", json!({"quota": -5})).refusal();
    assert_eq!(refusal, "linux.resources.cpu.quota: -5 is negative (-1 is no limit)");
    let refusal = with("cpu", json!({"shares": -1})).refusal();
    assert!(refusal.starts_with("linux.resources.cpu.shares: invalid value: integer `-1`"), "{refusal}");
    let wrong = [
        ("realtimeRuntime", json!(1)),
        ("realtimePeriod", json!(1)),
        ("cpus", json!("0")),
        ("mems", json!("0")),
    ];
    for (name, value) in wrong {
        let refusal = with(&format!("cpu.{name}"), value).refusal();
        assert_eq!(refusal, format!("linux.resources.cpu.{name} is not supported yet"));
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
fn what_is_not_done_yet_is_refused_by_name_unless_it_asks_for_nothing() {
    let parts = [
        ("blockIO", json!({"weight": 10}), json!({"weight": 0, "weightDevice": []})),
        ("hugepageLimits", json!([{"pageSize": "2MB", "limit": 1}]), json!([])),
        ("network", json!({"classID": 1}), json!({"classID": 0, "priorities": []})),
        ("rdma", json!({"mlx5_1": {"hcaHandles": 3}}), json!({})),
    ];
    for (name, asks, empty) in parts {
        assert_eq!(with(name, asks).refusal(), format!("linux.resources.{name} is not supported yet"));
        with(name, empty).load().unwrap();
        with(name, json!(null)).load().unwrap();
    }
}
