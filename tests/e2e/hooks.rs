//! Hooks: all six at their places, and what is left when one of them fails, hangs or is cut off.

use std::{fs, path::Path};

use bulkhead_tests::host::{Bundle, DEADLINE, TestHost, finish, until};
use serde_json::{Value, json};

use crate::pod::{running, seen, sharing};

/// Hooks of `/bin/sh` (of the host, or of the rootfs for startContainer).
fn hook(script: &str) -> Value {
    json!([{
        "path": "/bin/sh",
        "args": ["sh", "-c", script],
        "env": ["PATH=/usr/bin:/bin"],
        "timeout": 60,
    }])
}

/// Writes `NAME` and the state that it was told as one line each.
fn note(name: &str, file: &Path) -> Value {
    hook(&format!("{{ echo {name}; cat; echo; }} >> {}", file.display()))
}

fn create_fails(host: &TestHost, bundle: &Bundle, words: &[&str]) {
    let id = host.id("web");
    let mut command = host.bulkhead(["create", "--bundle"]);
    finish(command.arg(bundle.write()).arg(&id), b"", DEADLINE).failure(1, words);
    host.assert_no_trace_of(&id);
    host.output(["state", &id]).failure(1, &["does not exist"]);
}

#[test]
fn all_six_run_in_order_and_are_told_the_state() {
    let host = TestHost::new();
    let file = host.dir().join("notes");
    let mut bundle = host.bundle().own_rootfs().sh("echo program >> /tmp/notes; echo $(cat /made)");
    for name in ["prestart", "createRuntime", "poststart", "poststop"] {
        bundle = bundle.set(&format!("/hooks/{name}"), note(name, &file));
    }
    let made = bundle.dir().join("rootfs/made");
    let script = format!(
        "echo by a hook > {}; {{ echo createContainer; cat; echo; }} >> {}",
        made.display(),
        file.display()
    );
    let bundle = bundle
        .set("/hooks/createContainer", hook(&script))
        .set("/hooks/startContainer", note("startContainer", Path::new("/tmp/notes")))
        .set("/annotations", json!({"org.example.key": "value"}));
    let web = host.create("web", &bundle);
    let proxy = web.pid().as_raw();
    assert!(!bundle.dir().join("rootfs/tmp/notes").exists());
    web.start();
    assert_eq!(web.wait(), 0);
    assert_eq!(web.stdout(), "by a hook\n");
    web.delete();

    let notes = fs::read_to_string(&file).unwrap();
    let lines: Vec<&str> = notes.lines().collect();
    let expected = [
        ("prestart", "creating", json!(proxy)),
        ("createRuntime", "creating", json!(proxy)),
        ("createContainer", "creating", json!(proxy)),
        ("poststart", "running", json!(proxy)),
        ("poststop", "stopped", json!(null)),
    ];
    assert_eq!(lines.len(), 2 * expected.len(), "{notes}");
    for (pair, (name, status, pid)) in lines.chunks(2).zip(expected) {
        let state: Value = serde_json::from_str(pair[1]).unwrap();
        assert_eq!((pair[0], &state["status"], &state["pid"]), (name, &json!(status), &pid));
        assert_eq!((&state["id"], &state["ociVersion"]), (&json!(web.id), &json!("1.0.2")));
        assert_eq!(state["annotations"]["org.example.key"], "value");
        assert_eq!(state["bundle"], json!(bundle.dir().canonicalize().unwrap()));
    }
    // In the container, before its program; as pid 1 of its namespace.
    let inside = fs::read_to_string(bundle.dir().join("rootfs/tmp/notes")).unwrap();
    let lines: Vec<&str> = inside.lines().collect();
    let state: Value = serde_json::from_str(lines[1]).unwrap();
    assert_eq!((lines[0], &state["status"], &state["pid"]), ("startContainer", &json!("created"), &json!(1)));
    assert_eq!(lines[2], "program");
}

#[test]
fn a_creation_whose_hook_fails_leaves_nothing_and_is_followed_by_poststop() {
    let host = TestHost::new();
    let file = host.dir().join("notes");
    let bundle = host
        .bundle()
        .set("/hooks/createRuntime", hook("echo no such luck >&2; exit 7"))
        .set("/hooks/createContainer", note("never", &file))
        .set("/hooks/poststop", note("poststop", &file));
    create_fails(&host, &bundle, &["hooks.createRuntime[0] /bin/sh: exit status: 7: no such luck"]);
    assert!(fs::read_to_string(&file).unwrap().starts_with("poststop\n"));
}

#[test]
fn a_hook_that_hangs_and_floods_or_dies_leaves_nothing() {
    let host = TestHost::new();
    let hang =
        json!([{"path": "/bin/sh", "args": ["sh", "-c", "while :; do echo flood >&2; done"], "timeout": 1}]);
    create_fails(
        &host,
        &host.bundle().set("/hooks/prestart", hang),
        &["hooks.prestart[0]", "killed after 1s"],
    );
    let dies = host.bundle().set("/hooks/prestart", hook("kill -KILL $$"));
    create_fails(&host, &dies, &["hooks.prestart[0] /bin/sh: signal: 9"]);
}

#[test]
fn a_creation_that_is_killed_in_a_hook_leaves_nothing() {
    let host = TestHost::new();
    let mark = host.dir().join("mark");
    let script = format!("touch {}; exec sleep 1000", mark.display());
    let bundle = host.bundle().set("/hooks/createRuntime", hook(&script));
    let id = host.id("web");
    let mut create = host.bulkhead(["create", "--bundle"]).arg(bundle.write()).arg(&id).spawn().unwrap();
    until("the hook runs", DEADLINE, || mark.exists().then_some(()));
    create.kill().unwrap();
    create.wait().unwrap();
    until("it is all gone", DEADLINE, || (!host.root().join(&id).exists()).then_some(()));
    host.assert_no_trace_of(&id);
}

/// A `create` that hangs in a hook, which leaves `mark`.
fn hanging(host: &TestHost, bundle: Bundle, name: &str) -> (std::process::Child, String) {
    let mark = host.dir().join(format!("{name}.mark"));
    let script = format!("touch {}; exec sleep 1000", mark.display());
    let bundle = bundle.set("/hooks/createRuntime", hook(&script));
    let id = host.id(name);
    let create = host.bulkhead(["create", "--bundle"]).arg(bundle.write()).arg(&id).spawn().unwrap();
    until("the hook runs", DEADLINE, || mark.exists().then_some(()));
    (create, id)
}

#[test]
fn a_creation_in_the_microvm_of_another_container_that_is_killed_in_a_hook_leaves_nothing() {
    let host = TestHost::new();
    let first = running(&host, "first", &host.bundle().args(["probe", "linger"]));
    let second = sharing(&host, &first, &["network", "ipc"]).args(["probe", "linger"]);
    let (mut create, id) = hanging(&host, second, "second");
    create.kill().unwrap();
    create.wait().unwrap();
    until("it is all gone", DEADLINE, || (!host.root().join(&id).exists()).then_some(()));
    host.assert_no_trace_of(&id);
    // The microVM goes on, and has nothing of it either.
    assert!(!seen(&first, &["busybox", "ls", "/sys/fs/cgroup"]).contains(&id));
    let again = running(&host, "second", &sharing(&host, &first, &["network"]).args(["probe", "linger"]));
    assert_eq!(again.id, id);
    again.delete_force();
    first.delete_force();
    host.assert_no_trace();
}

#[test]
fn a_container_that_is_being_created_has_a_state() {
    let host = TestHost::new();
    let (mut create, id) = hanging(&host, host.bundle(), "web");
    let state: Value = serde_json::from_str(&host.output(["state", &id]).success()).unwrap();
    assert_eq!((&state["id"], &state["status"], &state["pid"]), (&json!(id), &json!("creating"), &json!(0)));
    assert_eq!(state["ociVersion"], "1.0.2");
    assert!(state["bundle"].is_string());
    let list: Value = serde_json::from_str(&host.output(["list", "-f", "json"]).success()).unwrap();
    assert_eq!((&list[0]["id"], &list[0]["status"]), (&json!(id), &json!("creating")));
    host.output(["start", &id]).failure(1, &["is being created"]);
    host.output(["delete", &id]).failure(1, &["is being created"]);
    // By force it goes, though the command still waits for its hook.
    host.output(["delete", "--force", &id]).success();
    assert!(!host.root().join(&id).exists());
    create.kill().unwrap();
    create.wait().unwrap();
    host.assert_no_trace_of(&id);
}

#[test]
fn a_program_whose_start_hook_fails_does_not_run() {
    let host = TestHost::new();
    let bundle = host.bundle().sh("echo ran").set("/hooks/startContainer", hook("echo inside >&2; exit 5"));
    let web = host.create("web", &bundle);
    web.command("start", [""; 0]).failure(1, &["hooks.startContainer[0] /bin/sh: exit status: 5: inside"]);
    assert_ne!(web.wait(), 0);
    assert_eq!(web.stdout(), "");
    web.until_status("stopped", DEADLINE);
    web.delete();
}

#[test]
fn a_failing_poststart_hook_takes_the_container_with_it_and_a_failing_poststop_only_warns() {
    let host = TestHost::new();
    let bundle = host
        .bundle()
        .args(["probe", "linger"])
        .set("/hooks/poststart", hook("exit 6"))
        .set("/hooks/poststop", hook("exit 8"));
    let web = host.create("web", &bundle);
    web.command("start", [""; 0]).failure(1, &["hooks.poststart[0] /bin/sh: exit status: 6"]);
    assert_eq!(web.wait(), 137);
    assert_eq!(web.status(), "stopped");
    let deleted = web.command("delete", [""; 0]);
    deleted.success();
    assert!(deleted.errors().contains("hooks.poststop[0] /bin/sh: exit status: 8"), "{}", deleted.errors());
    host.assert_no_trace_of(&web.id);
}
