use super::*;

#[test]
fn what_the_spec_module_refuses_is_not_claimed() {
    let features = features();
    let options = features["mountOptions"].as_array().unwrap();
    assert!(options.contains(&json!("rro")) && options.contains(&json!("nosymfollow")));
    assert!(options.contains(&json!("tmpcopyup")) && options.contains(&json!("ridmap")));
    let namespaces = features["linux"]["namespaces"].as_array().unwrap();
    assert!(namespaces.contains(&json!("user")) && namespaces.contains(&json!("time")));
    let seccomp = &features["linux"]["seccomp"];
    assert!(!seccomp["actions"].as_array().unwrap().contains(&json!("SCMP_ACT_NOTIFY")));
    assert_eq!(
        seccomp["supportedFlags"],
        json!(["SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_SPEC_ALLOW", "SECCOMP_FILTER_FLAG_TSYNC"])
    );
    assert_eq!(features["hooks"], json!([]));
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
