use serde_json::{Value, json};

use super::super::fixture::{Fixture, bundle};
use super::*;

const THROTTLES: [&str; 4] =
    ["throttleReadBpsDevice", "throttleWriteBpsDevice", "throttleReadIOPSDevice", "throttleWriteIOPSDevice"];

fn with(name: &str, value: Value) -> Fixture {
    bundle().set(&format!("linux.resources.{name}"), value)
}

fn limits(name: &str, value: Value) -> HostLimits {
    with(name, value).load().unwrap().host.limits
}

#[test]
fn cpus_and_nodes_are_lists_of_the_hosts_numbers() {
    let cpu = limits("cpu", json!({"cpus": "4-5,7", "mems": "1"}));
    assert_eq!((cpu.cpus.unwrap().to_string(), cpu.mems.unwrap().to_string()), ("4-5,7".into(), "1".into()));
    assert_eq!(limits("cpu", json!({"cpus": ""})), HostLimits::default());
    for name in ["cpus", "mems"] {
        let refusal = with(&format!("cpu.{name}"), json!("1-0")).refusal();
        assert_eq!(refusal, format!("linux.resources.cpu.{name}: \"1-0\" is not a list like 0-2,7"));
    }
}

#[test]
fn shares_and_idle_hold_on_the_host_as_in_the_guest() {
    let loaded = with("cpu", json!({"shares": 1024, "idle": 0})).load().unwrap();
    assert_eq!((loaded.host.limits.cpu_weight, loaded.host.limits.cpu_idle), (Some(100), Some(false)));
    assert_eq!(
        (loaded.guest.resources.cpu_weight, loaded.guest.resources.cpu_idle),
        (Some(100), Some(false))
    );
    assert!(loaded.host.limits.fields().is_empty());
}

#[test]
fn a_weight_of_block_io_is_the_same_in_both_scales() {
    let weight = |weight| limits("blockIO", json!({ "weight": weight })).io_weight;
    assert_eq!([weight(10), weight(500), weight(1000)], [Some(10), Some(500), Some(1000)]);
    assert_eq!([10, 500, 1000].map(io_weight), [1, 4950, 10_000]);
    let nothing = json!({"weight": 0, "leafWeight": 0, "weightDevice": []});
    assert_eq!(limits("blockIO", nothing), HostLimits::default());
    for wrong in [9, 1001] {
        let refusal = with("blockIO", json!({ "weight": wrong })).refusal();
        assert_eq!(refusal, format!("linux.resources.blockIO.weight: {wrong} is not within 10 to 1000"));
    }
}

#[test]
fn what_names_a_disk_is_taken_with_its_path() {
    for name in THROTTLES {
        let taken = limits("blockIO", json!({name: [{"major": 8, "minor": 16, "rate": 5}]}));
        let [throttle] = taken.throttles.as_slice() else { panic!("{taken:?}") };
        let field = format!("linux.resources.blockIO.{name}[0]");
        assert_eq!((throttle.major, throttle.minor, throttle.value), (8, 16, 5));
        assert_eq!(taken.fields(), [field]);
    }
    let device = json!([{"major": 8, "minor": 0}, {"major": 8, "minor": 16, "weight": 300}]);
    let taken = limits("blockIO", json!({ "weightDevice": device }));
    let [weight] = taken.device_weights.as_slice() else { panic!("{taken:?}") };
    assert_eq!((weight.minor, weight.value), (16, 300));
    assert_eq!(weight.field, "linux.resources.blockIO.weightDevice[1]");
}

#[test]
fn a_bad_disk_is_refused_by_its_path() {
    let refusal = |name: &str, devices: Value| with("blockIO", json!({ name: devices })).refusal();
    for name in THROTTLES {
        let field = format!("linux.resources.blockIO.{name}");
        assert_eq!(refusal(name, json!([{"major": 8, "minor": 0}])), format!("{field}[0].rate is missing"));
        assert_eq!(
            refusal(name, json!([{"major": 8, "minor": -1, "rate": 1}])),
            format!("{field}[0]: 8:-1 is no device number")
        );
        let many = vec![json!({"major": 8, "minor": 0, "rate": 1}); DEVICES_MAX + 1];
        assert_eq!(refusal(name, json!(many)), format!("{field}: 33 devices are more than 32"));
    }
    let weight = |device| refusal("weightDevice", json!([device]));
    assert_eq!(
        weight(json!({"major": 8, "minor": 0, "weight": 5})),
        "linux.resources.blockIO.weightDevice[0].weight: 5 is not within 10 to 1000"
    );
    let leaf = "leafWeight is not supported: cgroup2 has no leaf weights";
    assert_eq!(
        weight(json!({"major": 8, "minor": 0, "leafWeight": 5})),
        format!("linux.resources.blockIO.weightDevice[0].{leaf}")
    );
    let refusal = with("blockIO", json!({"leafWeight": 100})).refusal();
    assert_eq!(refusal, format!("linux.resources.blockIO.{leaf}"));
}
