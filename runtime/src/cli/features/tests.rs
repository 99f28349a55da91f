use super::*;

#[test]
fn what_the_spec_module_refuses_is_not_claimed() {
    let features = features();
    let options = features["mountOptions"].as_array().unwrap();
    assert!(options.contains(&json!("rro")) && options.contains(&json!("nosymfollow")));
    assert!(options.contains(&json!("tmpcopyup")) && options.contains(&json!("ridmap")));
    let namespaces = features["linux"]["namespaces"].as_array().unwrap();
    assert!(namespaces.contains(&json!("user")) && !namespaces.contains(&json!("time")));
    assert_eq!(features["linux"]["seccomp"], json!({"enabled": false}));
    assert_eq!(features["hooks"], json!([]));
}

#[test]
fn the_lists_are_sorted_and_without_repetition() {
    for list in [&features()["mountOptions"], &features()["linux"]["namespaces"]] {
        let names: Vec<&str> = list.as_array().unwrap().iter().map(|name| name.as_str().unwrap()).collect();
        assert!(names.is_sorted_by(|a, b| a < b), "{names:?}");
    }
}
