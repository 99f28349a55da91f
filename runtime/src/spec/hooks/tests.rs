use serde_json::{Value, json};

use crate::spec::fixture::{bundle, one};

fn hook(change: &[(&str, Value)]) -> Value {
    let mut hook = json!({"path": "/bin/true", "args": ["true", "-x"], "env": ["A=1"], "timeout": 5});
    for (key, value) in change {
        hook[*key] = value.clone();
    }
    one(hook)
}

#[test]
fn each_hook_goes_where_it_runs() {
    let mut fixture = bundle();
    for name in super::names() {
        fixture = fixture.set(&format!("hooks.{name}"), hook(&[("path", json!(format!("/bin/{name}")))]));
    }
    let bundle = fixture.load().unwrap();
    let hooks = &bundle.host.hooks;
    let lists = [
        (&hooks.prestart, "/bin/prestart"),
        (&hooks.create_runtime, "/bin/createRuntime"),
        (&hooks.create_container, "/bin/createContainer"),
        (&hooks.start_container, "/bin/startContainer"),
        (&hooks.poststart, "/bin/poststart"),
        (&hooks.poststop, "/bin/poststop"),
    ];
    for (list, path) in lists {
        assert_eq!(list[0].path, path);
        assert_eq!(
            (&list[0].args[..], &list[0].env[..], list[0].timeout),
            (&["true".into(), "-x".into()][..], &["A=1".into()][..], Some(5))
        );
    }
    let start = bundle.guest.start_hooks.unwrap();
    assert_eq!((start.hooks[0].path.as_str(), start.state.id.as_str()), ("/bin/startContainer", "web"));
    assert_eq!(start.state.bundle, bundle.dir.to_str().unwrap());
}

#[test]
fn without_hooks_the_guest_hears_of_none() {
    for hooks in [json!(null), json!({}), json!({"poststop": []}), json!({"startContainer": null})] {
        let bundle = bundle().set("hooks", hooks).load().unwrap();
        assert!(bundle.host.hooks.is_empty() && bundle.guest.start_hooks.is_none());
    }
}

#[test]
fn a_hook_needs_an_absolute_path() {
    let refusal = |value: Value| bundle().set("hooks.prestart", hook(&[("path", value)])).refusal();
    assert_eq!(refusal(json!("bin/true")), "hooks.prestart[0].path: \"bin/true\" is not an absolute path");
    assert_eq!(refusal(json!("")), "hooks.prestart[0].path is missing");
    assert_eq!(refusal(json!(null)), "hooks.prestart[0].path is missing");
}

#[test]
fn a_timeout_is_at_least_a_second() {
    for seconds in [0, -1] {
        let refusal = bundle().set("hooks.poststop", hook(&[("timeout", json!(seconds))])).refusal();
        let expected = format!("hooks.poststop[0].timeout: {seconds} is not a number of seconds above 0");
        assert_eq!(refusal, expected);
    }
}

#[test]
fn variables_and_arguments_are_checked() {
    let refusal = bundle().set("hooks.createRuntime", hook(&[("env", json!(["A"]))])).refusal();
    assert_eq!(refusal, "hooks.createRuntime[0].env[0]: \"A\" is not NAME=value");
    let refusal = bundle().set("hooks.createRuntime", hook(&[("args", json!(["a\0b"]))])).refusal();
    assert_eq!(refusal, "hooks.createRuntime[0].args[0]: contains a NUL byte");
}
