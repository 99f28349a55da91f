use std::{os::unix::process::ExitStatusExt, process::ExitStatus, time::Duration};

use serde_json::json;

use super::*;

fn finished(stdout: &str) -> Finished {
    Finished {
        status: ExitStatus::from_raw(0),
        stdout: stdout.into(),
        stderr: Vec::new(),
        took: Duration::ZERO,
    }
}

fn view(report: &Value) -> View {
    View::of(&finished(&report.to_string()), &Namespaces::first_of_a_kernel())
}

#[test]
fn a_mount_is_told_option_by_option_and_those_above_it_by_number() {
    let facts = view(&json!({ "mounts": [
        "30 20 0:26 / /tmp rw,nosuid shared:5 - tmpfs none rw,size=4k",
        "31 30 0:27 /bus /tmp ro,relatime - proc proc rw"
    ] }));
    for (name, value) in [
        ("mount /tmp.type", "tmpfs"),
        ("mount /tmp.source", "none"),
        ("mount /tmp.option.nosuid", "set"),
        ("mount /tmp.data.size", "4k"),
        ("mount /tmp.propagation", "shared"),
        ("mount /tmp above 1.root", "/bus"),
        ("mount /tmp above 1.option.ro", "set"),
        ("mount /tmp above 1.propagation", ""),
    ] {
        assert_eq!(facts.0.get(name).map(String::as_str), Some(value), "{name}");
    }
    assert!(!facts.0.contains_key("mount /tmp.root"));
}

#[test]
fn a_namespace_is_own_or_shared_whatever_its_number() {
    let facts = view(&json!({ "namespaces": {
        "pid": "pid:[4026532000]", "ipc": "ipc:[4026531839]", "pid_for_children": "pid:[4026531836]"
    } }));
    assert_eq!(facts.0["namespaces.pid"], "own");
    assert_eq!(facts.0["namespaces.ipc"], "shared");
}

#[test]
fn limits_and_nested_values_are_facts_of_their_own() {
    let facts = view(&json!({
        "limits": ["Limit  Soft Limit  Hard Limit  Units", "Max open files            1024                 4096                 files"],
        "status": { "CapEff": "00" }, "groups": [1, 2]
    }));
    assert_eq!(facts.0["limits.Max open files"], "1024 4096");
    assert_eq!(facts.0["status.CapEff"], "00");
    assert_eq!(facts.0["groups"], "[1,2]");
}

#[test]
fn differences_name_what_only_one_side_has() {
    let (one, other) = (view(&json!({ "a": 1, "b": 2 })), view(&json!({ "b": 3, "c": 4 })));
    let expected = [("a", "1", NOTHING), ("b", "2", "3"), ("c", NOTHING, "4")];
    let expected = expected.map(|(name, one, other)| (name.to_owned(), one.to_owned(), other.to_owned()));
    assert_eq!(one.differences(&other), expected);
}

#[test]
fn an_output_that_is_no_report_is_compared_whole() {
    let text = "x".repeat(5000);
    let other = text.clone() + "y";
    let outer = Namespaces::first_of_a_kernel();
    assert_ne!(View::of(&finished(&text), &outer), View::of(&finished(&other), &outer));
    assert_eq!(View::of(&finished("hello\n"), &outer).0["stdout"], "hello\n");
}
