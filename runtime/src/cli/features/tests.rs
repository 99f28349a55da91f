use super::*;

#[test]
fn what_the_spec_module_takes_is_claimed_and_nothing_else() {
    let features = features();
    let options = features["mountOptions"].as_array().unwrap();
    assert!(options.contains(&json!("rro")) && options.contains(&json!("nosymfollow")));
    assert!(options.contains(&json!("tmpcopyup")) && options.contains(&json!("ridmap")));
    let namespaces = features["linux"]["namespaces"].as_array().unwrap();
    assert!(namespaces.contains(&json!("user")) && namespaces.contains(&json!("time")));
    let modes = features["linux"]["memoryPolicy"]["modes"].as_array().unwrap();
    assert!(modes.contains(&json!("MPOL_INTERLEAVE")), "{modes:?}");
    let seccomp = &features["linux"]["seccomp"];
    assert!(!seccomp["actions"].as_array().unwrap().contains(&json!("SCMP_ACT_NOTIFY")));
    assert_eq!(
        seccomp["supportedFlags"],
        json!(["SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_SPEC_ALLOW", "SECCOMP_FILTER_FLAG_TSYNC"])
    );
}

#[test]
fn the_lists_are_sorted_and_without_repetition() {
    let features = features();
    let linux = &features["linux"];
    let seccomp = ["actions", "operators", "archs", "knownFlags"].map(|name| &linux["seccomp"][name]);
    let policy = ["modes", "flags"].map(|name| &linux["memoryPolicy"][name]);
    for list in [&features["mountOptions"], &linux["namespaces"]].into_iter().chain(seccomp).chain(policy) {
        let names: Vec<&str> = list.as_array().unwrap().iter().map(|name| name.as_str().unwrap()).collect();
        assert!(names.is_sorted_by(|a, b| a < b), "{names:?}");
    }
}

/// What the published schema of `features` asks for, as far as we print it.
#[test]
fn the_output_has_the_types_of_the_schema() {
    let features = features();
    let strings = |value: &Value| value.as_array().is_some_and(|list| list.iter().all(Value::is_string));
    assert!(features["ociVersionMin"].is_string() && features["ociVersionMax"].is_string());
    for list in ["hooks", "mountOptions", "potentiallyUnsafeConfigAnnotations"] {
        assert!(strings(&features[list]), "{list}");
    }
    assert!(features["annotations"].as_object().unwrap().values().all(Value::is_string));
    let linux = &features["linux"];
    assert!(strings(&linux["namespaces"]) && strings(&linux["capabilities"]));
    for flag in ["v1", "v2", "systemd", "systemdUser", "rdma"] {
        assert!(linux["cgroup"][flag].is_boolean(), "{flag}");
    }
    for part in ["seccomp", "apparmor", "selinux", "intelRdt", "netDevices"] {
        assert!(linux[part]["enabled"].is_boolean(), "{part}");
    }
    assert!(linux["mountExtensions"]["idmap"]["enabled"].is_boolean());
    assert!(strings(&linux["memoryPolicy"]["modes"]) && strings(&linux["memoryPolicy"]["flags"]));
    let known = [
        "annotations",
        "hooks",
        "linux",
        "mountOptions",
        "ociVersionMax",
        "ociVersionMin",
        "potentiallyUnsafeConfigAnnotations",
    ];
    assert!(features.as_object().unwrap().keys().eq(known), "{features}");
}

#[test]
fn all_hooks_are_claimed_in_their_order() {
    let hooks = ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"];
    assert_eq!(features()["hooks"], json!(hooks));
}

/// The output is made from the tables of the spec module and not from oci-spec's type, which writes `null` for what is
/// absent, against the schema. That type reads all of it.
#[test]
fn oci_spec_reads_the_whole_output() {
    fn without_nulls(value: Value) -> Value {
        match value {
            Value::Object(fields) => {
                let there = fields.into_iter().filter(|(_, value)| !value.is_null());
                there.map(|(name, value)| (name, without_nulls(value))).collect()
            }
            other => other,
        }
    }
    let read: oci_spec::runtime::Features = serde_json::from_value(features()).unwrap();
    assert_eq!(without_nulls(serde_json::to_value(&read).unwrap()), features());
}
