use serde_json::{Value, json};

use super::super::fixture::{Fixture, bundle, one};
use super::*;

fn device(value: Value) -> Fixture {
    bundle().set("linux.devices", one(value))
}

#[test]
fn a_device_that_the_guest_has_is_taken_with_its_owner_and_mode() {
    let spec = json!({"path": "/dev/fuse", "type": "c", "major": 10, "minor": 229, "fileMode": 0o20640, "uid": 1, "gid": 2});
    let expected = DeviceNode {
        path: "/dev/fuse".into(),
        kind: DeviceKind::Char,
        major: 10,
        minor: 229,
        by_name: false,
        disk: None,
        mode: 0o640,
        uid: 1,
        gid: 2,
    };
    assert_eq!(device(spec).guest().devices, [expected]);
}

#[test]
fn every_device_of_the_guest_can_be_named_anything() {
    for (major, minor, name) in GUEST {
        let spec = json!({"path": format!("/dev/my-{name}"), "type": "u", "major": major, "minor": minor});
        let nodes = device(spec).guest().devices;
        assert_eq!((nodes[0].major, nodes[0].minor, nodes[0].mode), (major, minor, 0o666));
    }
}

#[test]
fn a_fifo_needs_no_numbers() {
    let nodes = device(json!({"path": "/dev/pipe", "type": "p", "fileMode": 0o600})).guest().devices;
    assert_eq!((nodes[0].kind, nodes[0].mode), (DeviceKind::Fifo, 0o600));
}

#[test]
fn a_device_of_the_host_is_refused_by_name() {
    let kvm = device(json!({"path": "/dev/kvm", "type": "c", "major": 10, "minor": 232})).refusal();
    assert!(
        kvm.starts_with("linux.devices[0] is not supported: /dev/kvm (c 10:232) is not in the microVM"),
        "{kvm}"
    );
}

/// A container with disks, and rules for them.
fn with_disks(disks: &[(u32, u32)], rules: Value) -> Fixture {
    let node = |(number, (major, minor)): (usize, &(u32, u32))| json!({"path": format!("/dev/d{number}"), "type": "b", "major": major, "minor": minor});
    let nodes: Vec<Value> = disks.iter().enumerate().map(node).collect();
    bundle().set("linux.devices", json!(nodes)).set("linux.resources.devices", rules)
}

fn rule_for(allow: bool, kind: &str, (major, minor): (i64, i64), access: &str) -> Value {
    json!({"allow": allow, "type": kind, "major": major, "minor": minor, "access": access})
}

#[test]
fn a_block_device_is_taken_and_the_rules_say_whether_it_is_written() {
    let may_write = |rules: Value| {
        let guest = with_disks(&[(7, 0)], rules).guest();
        may_write(&guest.resources.devices, &guest.devices[0])
    };
    let none = json!({"allow": false, "access": "rwm"});
    let read = rule_for(true, "b", (7, 0), "r");
    let full = rule_for(true, "b", (7, 0), "rwm");
    assert!(!may_write(json!([none, read])));
    assert!(may_write(json!([none, full])));
    assert!(!may_write(json!([none, full, rule_for(false, "b", (7, 0), "w")])));
    assert!(may_write(json!([none, rule_for(true, "b", (7, -1), "rw")])), "all of a driver");
    assert!(may_write(json!([none, rule_for(true, "b", (-1, -1), "rw")])), "all there are");
    assert!(may_write(json!([none, rule_for(true, "a", (7, 0), "rw")])));
    assert!(!may_write(json!([none, read, rule_for(true, "b", (7, 1), "rw")])), "another one");
    assert!(!may_write(json!([none, read, rule_for(true, "c", (7, 0), "rw")])), "a character device");
}

#[test]
fn a_block_device_that_no_rule_lets_be_used_is_refused() {
    let none = json!({"allow": false, "access": "rwm"});
    for rules in [json!([]), json!([none]), json!([none, rule_for(true, "b", (7, 0), "m")])] {
        let refusal = with_disks(&[(7, 0)], rules).refusal();
        let told = "linux.devices[0] is not supported: no rule of linux.resources.devices lets the container read or \
                    write /dev/d0 (b 7:0)";
        assert_eq!(refusal, told);
    }
}

#[test]
fn more_block_devices_than_there_are_slots_are_refused() {
    let all = json!([{"allow": true, "type": "b", "access": "rw"}]);
    let disks: Vec<(u32, u32)> = (0..5).map(|minor| (8, minor)).collect();
    assert_eq!(with_disks(&disks[..4], all.clone()).guest().devices.len(), 4);
    let again = [disks[0], disks[1], disks[2], disks[3], disks[0]];
    assert_eq!(with_disks(&again, all.clone()).guest().devices.len(), 5, "one has two names");
    let refusal = with_disks(&disks, all).refusal();
    assert_eq!(refusal, "linux.devices[4] is not supported: a pod has 4 disks at most");
}

#[test]
fn rules_for_block_devices_are_kept_for_those_of_the_container_alone() {
    let spec = with_disks(
        &[(8, 0), (8, 16), (7, 3)],
        json!([
            {"allow": true, "type": "b", "access": "r"},
            rule_for(true, "b", (8, -1), "rw"),
            rule_for(false, "b", (8, 16), "w"),
            rule_for(false, "b", (254, 0), "rwm"),
            rule_for(false, "b", (254, -1), "rwm"),
            rule_for(true, "b", (254, 16), "rwm"),
            rule_for(true, "a", (7, 3), "rw"),
        ]),
    );
    let kept: Vec<_> =
        spec.guest().resources.devices.iter().map(|rule| (rule.allow, rule.major, rule.minor)).collect();
    let expected = [
        (true, None, None),
        (true, Some(8), Some(0)),
        (true, Some(8), Some(16)),
        (false, Some(8), Some(16)),
        (true, Some(7), Some(3)),
    ];
    assert_eq!(kept, expected);
    assert_eq!(spec.warnings(), ["linux.resources.devices[5]: no such device is in the microVM"]);
}

#[test]
fn devices_of_the_host_are_left_out_for_a_privileged_container_with_one_note() {
    let all = json!({"allow": true, "access": "rwm"});
    let none = json!({"allow": false, "access": "rwm"});
    let devices: Vec<Value> = (0..20)
        .map(|minor| json!({"path": format!("/dev/sd{minor}"), "type": "b", "major": 8, "minor": minor}))
        .chain([
            json!({"path": "/dev/kvm", "type": "c", "major": 10, "minor": 232}),
            json!({"path": "/dev/fuse", "type": "c", "major": 10, "minor": 229}),
        ])
        .collect();
    let with =
        |rules: Value| bundle().set("linux.devices", json!(devices)).set("linux.resources.devices", rules);
    let privileged = with(json!([none, all, {"allow": false, "type": "c", "major": 1, "minor": 1}]));
    let paths: Vec<String> = privileged.guest().devices.into_iter().map(|node| node.path).collect();
    assert_eq!(paths, ["/dev/fuse"]);
    let host = privileged.load().unwrap().host;
    let note = "linux.devices: 21 devices of the host are not in the microVM: /dev/sd0, /dev/sd1, ";
    assert!(host.notes.len() == 1 && host.notes[0].starts_with(note), "{:?}", host.notes);
    assert_eq!(host.warnings, [""; 0]);
    let some = json!({"allow": true, "type": "b", "access": "rwm"});
    let read_only = json!({"allow": true, "access": "r"});
    for rules in [json!([]), json!([all, none])] {
        let refusal = with(rules).refusal();
        let told = "linux.devices[0] is not supported: no rule of linux.resources.devices lets";
        assert!(refusal.starts_with(told), "{refusal}");
    }
    for rules in [json!([some]), json!([read_only])] {
        let refusal = with(rules).refusal();
        assert_eq!(refusal, "linux.devices[4] is not supported: a pod has 4 disks at most");
    }
    // What is wrong stays wrong.
    let wrong = bundle().set("linux.resources.devices", json!([all]));
    let refusal =
        wrong.set("linux.devices", one(json!({"path": "/dev/x", "type": "c", "major": 1}))).refusal();
    assert_eq!(refusal, "linux.devices[0].minor is missing");
}

#[test]
fn a_device_must_be_whole() {
    let refusal = |value| device(value).refusal();
    let lacking = refusal(json!({"path": "/dev/x", "type": "c", "major": 1}));
    assert_eq!(lacking, "linux.devices[0].minor is missing");
    let negative = refusal(json!({"path": "/dev/x", "type": "c", "major": -1, "minor": 0}));
    assert_eq!(negative, "linux.devices[0].major: -1 is out of range");
    let relative = refusal(json!({"path": "x", "type": "c", "major": 1, "minor": 3}));
    assert_eq!(relative, "linux.devices[0].path: \"x\" is not an absolute path");
    let kind = refusal(json!({"path": "/dev/x", "type": "d"}));
    assert_eq!(kind, "linux.devices[0].type: \"d\" is not one of c, u, b, p");
    let untyped = refusal(json!({"path": "/dev/x"}));
    assert!(untyped.starts_with("linux.devices[0]: missing field `type`"), "{untyped}");
}

#[test]
fn a_path_given_twice_is_refused() {
    let node = json!({"path": "/dev/x", "type": "c", "major": 1, "minor": 3});
    let refusal = bundle().set("linux.devices", json!([node, node])).refusal();
    assert_eq!(refusal, "linux.devices[1]: /dev/x is given twice");
}

fn rules_of(value: Value) -> Vec<DeviceRule> {
    bundle().set("linux.resources.devices", value).guest().resources.devices
}

#[test]
fn rules_keep_their_order() {
    let rules = rules_of(json!([
        {"allow": false, "access": "rwm"},
        {"allow": true, "type": "c", "major": 10, "minor": 229, "access": "rw"},
        {"allow": true, "type": "b", "major": -1}
    ]));
    let any = DeviceRule {
        allow: false,
        kind: None,
        major: None,
        minor: None,
        read: true,
        write: true,
        mknod: true,
    };
    assert_eq!(rules[0], any);
    let fuse =
        DeviceRule { allow: true, kind: Some(DeviceKind::Char), major: Some(10), minor: Some(229), ..any };
    assert_eq!(rules[1], DeviceRule { mknod: false, ..fuse });
    let blocks = DeviceRule { allow: true, kind: Some(DeviceKind::Block), ..any };
    assert_eq!(rules[2..], [blocks]);
}

#[test]
fn a_device_that_is_numbered_at_boot_is_meant_by_its_name() {
    let host = json!({"path": "/dev/userfaultfd", "type": "c", "major": 10, "minor": 125});
    let rule = json!({"allow": true, "type": "c", "major": 10, "minor": 125, "access": "rw"});
    let spec = device(host).set("linux.resources.devices", one(rule));
    let guest = spec.guest();
    assert!(guest.devices[0].by_name && spec.warnings().is_empty());
    assert_eq!(guest.resources.devices[0].minor, Some(125));
}

#[test]
fn a_rule_that_allows_a_device_of_the_host_is_left_out_with_a_warning() {
    let rule = |allow, kind, major, minor: i64| json!({"allow": allow, "type": kind, "major": major, "minor": minor});
    let spec = bundle().set(
        "linux.resources.devices",
        json!([
            rule(true, "c", 236, 0),
            rule(true, "b", 8, -1),
            rule(true, "c", 42, -1),
            rule(false, "c", 236, 0),
            rule(true, "c", 136, -1),
            rule(true, "c", 5, 1),
        ]),
    );
    let kept: Vec<_> = spec.guest().resources.devices.iter().map(|rule| rule.major).collect();
    assert_eq!(kept, [Some(236), Some(136), Some(5)]);
    let warnings = spec.warnings();
    assert_eq!(warnings.len(), 3);
    assert_eq!(warnings[0], "linux.resources.devices[0]: no such device is in the microVM");
}

#[test]
fn without_rules_there_are_none() {
    assert_eq!(rules_of(json!([])), []);
    assert_eq!(rules_of(json!(null)), []);
}

#[test]
fn a_rule_with_a_bad_value_is_refused_by_name() {
    let refusal = |rule| bundle().set("linux.resources.devices", one(rule)).refusal();
    let kind = refusal(json!({"allow": true, "type": "x"}));
    assert_eq!(kind, "linux.resources.devices[0].type: \"x\" is not one of a, c, b");
    let access = refusal(json!({"allow": true, "access": "rx"}));
    assert_eq!(access, "linux.resources.devices[0].access: 'x' is not one of r, w, m");
    let number = refusal(json!({"allow": true, "major": 4096}));
    assert_eq!(number, "linux.resources.devices[0].major: 4096 is out of range");
    let allow = refusal(json!({"type": "a"}));
    assert!(allow.starts_with("linux.resources.devices[0]: missing field `allow`"), "{allow}");
}
