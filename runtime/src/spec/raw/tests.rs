//! Held against `oci-spec`, which others wrote from the same specification: a configuration that its types write out means
//! the same here. `Arbitrary` makes the configurations, with every field and every variant that those types have.

use proptest::prelude::*;
use serde::{Deserialize as _, de::value::Error};
use serde_json::Value;

use super::{
    arbitrary::{Arbitrary, Choices},
    *,
};

/// Parts that we do not read: a configuration may have them, and they mean nothing on Linux.
const NOT_READ: [(&str, &str); 8] = [
    ("solaris", "another platform"),
    ("windows", "another platform"),
    ("zos", "another platform"),
    ("uidMappings", "never a property of the root object; oci-spec marks it as deprecated"),
    ("gidMappings", "never a property of the root object; oci-spec marks it as deprecated"),
    ("process.commandLine", "Windows only"),
    ("process.user.username", "Windows only"),
    ("linux.resources.memory.useHierarchy", "cgroup1 only"),
];

/// Values that oci-spec's types hold and ours refuse, with the type's name for what it wants.
const REFUSED: [(&str, &str); 2] = [
    (
        "linux.resources.hugepageLimits[].limit",
        "no number of bytes is negative: the specification says uint64",
    ),
    (
        "linux.seccomp.syscalls[].args[].index",
        "a system call has six arguments: the specification says uint32",
    ),
];

fn listed(list: &[(&str, &str)], path: &str) -> bool {
    list.iter().any(|(known, _)| *known == path)
}

/// `linux.devices[3].path` without the index.
fn without_indices(path: &str) -> String {
    let mut plain = String::new();
    let mut in_index = false;
    for letter in path.chars() {
        in_index = letter == '[' || (in_index && letter != ']');
        if !in_index || letter == '[' {
            plain.push(letter);
        }
    }
    plain
}

/// What says as much as an absent field: ours have a default where others have an option.
fn is_nothing(value: &Value) -> bool {
    !asks_for_something(Some(value))
}

/// The places at which `ours` is not what `theirs` says.
fn differences(theirs: &Value, ours: &Value, path: &str, found: &mut Vec<String>) {
    match (theirs, ours) {
        (Value::Object(theirs), Value::Object(ours)) => {
            let names = theirs.keys().chain(ours.keys().filter(|name| !theirs.contains_key(*name)));
            for name in names {
                let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                match (theirs.get(name), ours.get(name)) {
                    _ if listed(&NOT_READ, &path) => {}
                    (Some(theirs), Some(ours)) => differences(theirs, ours, &path, found),
                    (Some(value), None) => found.push(format!("{path}: {value} is lost")),
                    (None, Some(value)) if is_nothing(value) => {}
                    (None, ours) => found.push(format!("{path}: {ours:?} is of our making")),
                }
            }
        }
        (Value::Array(theirs), Value::Array(ours)) if theirs.len() == ours.len() => {
            for (theirs, ours) in theirs.iter().zip(ours) {
                differences(theirs, ours, &format!("{path}[]"), found);
            }
        }
        // `null` is "not set", and some of ours have a default for it.
        (Value::Null, ours) if is_nothing(ours) => {}
        (theirs, ours) if theirs == ours => {}
        (theirs, ours) => found.push(format!("{path}: {theirs} is read as {ours}")),
    }
}

/// The configuration that oci-spec reads from these choices and writes out, if its types take it.
fn configuration(bytes: &[u8]) -> Result<Value, Error> {
    let spec = oci_spec::runtime::Spec::deserialize(Arbitrary::new(&mut Choices(bytes.iter())));
    Ok(serde_json::to_value(spec?).unwrap())
}

/// What is wrong with our reading of it.
fn misread(configuration: &Value) -> Vec<String> {
    match parse::<Spec>(configuration.to_string().as_bytes(), "config.json", "") {
        Ok(ours) => {
            let mut found = Vec::new();
            differences(configuration, &serde_json::to_value(&ours).unwrap(), "", &mut found);
            found
        }
        Err(SpecError::Type { field, .. }) if listed(&REFUSED, &without_indices(&field)) => Vec::new(),
        Err(error) => vec![bulkhead_sys::chain(&error)],
    }
}

/// All that a value has, by its path.
fn paths(value: &Value, path: &str, all: &mut Vec<String>) {
    match value {
        Value::Object(fields) => fields.iter().for_each(|(name, value)| {
            paths(value, &if path.is_empty() { name.clone() } else { format!("{path}.{name}") }, all);
        }),
        Value::Array(values) => values.iter().for_each(|value| paths(value, &format!("{path}[]"), all)),
        _ => all.push(path.to_owned()),
    }
}

#[test]
fn a_configuration_with_every_field_of_oci_spec_is_read_alike() {
    let full = configuration(&[1; 4096]).unwrap();
    assert_eq!(misread(&full), [""; 0]);
    // The choices do make all of it, down to the last of the fields.
    let mut all = Vec::new();
    paths(&full, "", &mut all);
    for path in [
        "hooks.poststop[].timeout",
        "linux.intelRdt.schemata[]",
        "linux.memoryPolicy.mode",
        "linux.netDevices.boottime.name",
        "linux.resources.blockIO.throttleWriteIOPSDevice[].rate",
        "linux.seccomp.syscalls[].args[].op",
        "linux.timeOffsets.boottime.nanosecs",
        "process.execCPUAffinity.final",
        "process.scheduler.period",
        "vm.kernel.initrd",
    ] {
        assert!(all.iter().any(|known| known == path), "{path} is not in {all:#?}");
    }
}

#[test]
fn a_difference_is_found_wherever_it_is() {
    let theirs =
        serde_json::json!({"process": {"args": ["a"], "user": {"uid": 7}}, "mounts": [{"type": null}]});
    let ours = serde_json::json!({"process": {"args": ["b"]}, "mounts": [{"type": 1}], "hostname": "web"});
    let mut found = Vec::new();
    differences(&theirs, &ours, "", &mut found);
    let expected = ["mounts[].type", "process.args[]", "process.user", "hostname"];
    assert!(
        found.len() == 4 && expected.iter().all(|path| found.iter().any(|f| f.starts_with(path))),
        "{found:?}"
    );
}

proptest! {
    #[test]
    fn what_oci_spec_accepts_and_writes_out_is_read_alike(bytes in prop::collection::vec(any::<u8>(), 0..4096)) {
        if let Ok(configuration) = configuration(&bytes) {
            let misread = misread(&configuration);
            prop_assert!(misread.is_empty(), "{misread:#?}\n{configuration:#}");
        }
    }
}
