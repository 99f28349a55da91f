use serde_json::json;

use super::{super::fixture::bundle, *};

fn devices(value: serde_json::Value) -> Vec<NetDevice> {
    bundle().set("linux.netDevices", value).load().unwrap().host.net_devices
}

#[test]
fn an_interface_keeps_its_name_or_gets_another() {
    let found = devices(json!({"eth1": {}, "eth0": {"name": "lan0"}, "eth2": {"name": ""}}));
    let names: Vec<_> = found.iter().map(|device| (&*device.interface, &*device.name)).collect();
    assert_eq!(names, [("eth0", "lan0"), ("eth1", "eth1"), ("eth2", "eth2")]);
    assert_eq!(found[0].field, r#"linux.netDevices["eth0"]"#);
    assert_eq!(devices(json!(null)), []);
}

#[test]
fn a_name_that_no_interface_can_have_or_that_is_there_twice_is_refused() {
    for (value, refusal) in [
        (json!({"": {}}), r#"linux.netDevices[""]: "" is no name of an interface"#),
        (json!({"a/b": {}}), r#"linux.netDevices["a/b"]: "a/b" is no name of an interface"#),
        (
            json!({"eth0": {"name": "a b"}}),
            r#"linux.netDevices["eth0"].name: "a b" is no name of an interface"#,
        ),
        (
            json!({"eth0": {"name": "eth%d"}}),
            r#"linux.netDevices["eth0"].name: "eth%d" is no name of an interface"#,
        ),
        (
            json!({"eth0": {"name": "0123456789abcdef"}}),
            r#"linux.netDevices["eth0"].name: "0123456789abcdef" is no name of an interface"#,
        ),
        (
            json!({"eth0": {"name": "x"}, "eth1": {"name": "x"}}),
            r#"linux.netDevices["eth1"]: another interface is to have the name x too"#,
        ),
    ] {
        assert_eq!(bundle().set("linux.netDevices", value).refusal(), refusal);
    }
}
