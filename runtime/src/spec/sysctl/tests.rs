use serde_json::json;

use super::super::{
    Policy,
    fixture::{Fixture, bundle},
};
use super::*;

fn with(key: &str, value: &str) -> Fixture {
    bundle().set("linux.sysctl", json!({key: value}))
}

#[test]
fn settings_of_the_containers_namespaces_are_taken() {
    for key in ["net.ipv4.ip_forward", "kernel.sem", "fs.mqueue.msg_max", "kernel.domainname"] {
        assert_eq!(with(key, "1").guest().sysctl[key], "1");
    }
}

#[test]
fn slashes_and_dots_mean_the_same() {
    assert_eq!(with("net/ipv4/ip_forward", "1").guest().sysctl["net.ipv4.ip_forward"], "1");
    assert_eq!(dotted("net/ipv4/conf/eth0.1/forwarding"), "net.ipv4.conf.eth0/1.forwarding");
    assert_eq!(dotted("net.ipv4.conf.eth0/1.forwarding"), "net.ipv4.conf.eth0/1.forwarding");
    let twice = bundle().set("linux.sysctl", json!({"net.core.somaxconn": "1", "net/core/somaxconn": "2"}));
    assert!(twice.refusal().ends_with("is given twice, with dots and with slashes"));
}

#[test]
fn a_setting_of_the_whole_kernel_is_refused() {
    for key in ["kernel.panic", "vm.overcommit_memory", "fs.file-max", "kernel.core_pattern"] {
        let refusal = with(key, "1").refusal();
        let expected = format!(
            "linux.sysctl[{key:?}] is not supported: the setting belongs to no namespace and would change the whole guest"
        );
        assert_eq!(refusal, expected);
    }
}

#[test]
fn a_setting_of_the_whole_kernel_is_taken_where_the_operator_allows_it() {
    let list = vec!["vm.*".to_owned(), "kernel.pid_max".to_owned()];
    let policy = Policy { sysctls: list.try_into().unwrap(), ..Policy::default() };
    for key in ["vm.overcommit_memory", "kernel.pid_max"] {
        let guest = with(key, "1").load_within(&policy).unwrap().guest;
        assert_eq!(guest.guest_sysctl[key], "1");
        assert!(guest.sysctl.is_empty());
    }
    let error = with("kernel.panic", "1").load_within(&policy).unwrap_err();
    assert!(error.hint().unwrap().contains("allowed_sysctls"));
    // What a namespace has stays the container's own.
    let shared = json!([{"type": "mount"}, {"type": "network"}]);
    let spec = with("kernel.sem", "1").set("linux.namespaces", shared).remove("hostname");
    let policy = Policy { sysctls: vec!["kernel.*".to_owned()].try_into().unwrap(), ..Policy::default() };
    assert!(spec.load_within(&policy).is_err());
}

#[test]
fn a_name_that_would_leave_proc_sys_is_refused() {
    for key in ["net...kernel.panic", "net//kernel", "net.", "net./../kernel/panic", ".net.x", ""] {
        let refusal = with(key, "1").refusal();
        assert!(refusal.starts_with("linux.sysctl["), "{refusal}");
        assert!(refusal.ends_with("is not the name of a setting"), "{key}: {refusal}");
    }
}

#[test]
fn the_hostname_has_its_own_field() {
    assert_eq!(
        with("kernel.hostname", "x").refusal(),
        "linux.sysctl[\"kernel.hostname\"]: use `hostname` instead"
    );
}

#[test]
fn a_setting_needs_its_namespace() {
    let spec =
        with("kernel.sem", "1").set("linux.namespaces", json!([{"type": "mount"}, {"type": "network"}]));
    let refusal = spec.remove("hostname").refusal();
    let expected =
        "linux.sysctl[\"kernel.sem\"]: the container has no namespace of its own that the setting belongs to";
    assert_eq!(refusal, expected);
}

#[test]
fn a_value_must_be_a_string() {
    let refusal = bundle().set("linux.sysctl", json!({"net.ipv4.ip_forward": 1})).refusal();
    assert!(refusal.starts_with("linux.sysctl.net.ipv4.ip_forward: invalid type: integer `1`"), "{refusal}");
}
