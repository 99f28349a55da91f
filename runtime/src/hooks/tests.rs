use std::fs;

use super::*;
use crate::log::{Format, LogOptions};

/// Appends its name and its state to `out` in the bundle.
fn hook(name: &str, end: &str) -> Hook {
    let script = format!("{{ echo {name}; cat; echo; }} >> out; {end}");
    Hook {
        path: "/bin/sh".into(),
        args: vec!["sh".into(), "-c".into(), script],
        env: vec!["PATH=/usr/bin:/bin".into()],
        timeout: Some(60),
    }
}

struct Fixture {
    bundle: tempfile::TempDir,
    hooks: Hooks,
}

impl Fixture {
    fn new(hooks: Hooks) -> Self {
        Self { bundle: tempfile::tempdir().unwrap(), hooks }
    }

    fn subject(&self) -> Subject<'_> {
        let state = HookState {
            oci_version: "1.3.0".into(),
            id: "web".into(),
            bundle: self.bundle.path().display().to_string(),
            ..HookState::default()
        };
        Subject { hooks: &self.hooks, state, bundle: self.bundle.path() }
    }

    /// The names, and the statuses that each was told.
    fn ran(&self) -> Vec<String> {
        let out = fs::read_to_string(self.bundle.path().join("out")).unwrap_or_default();
        let lines: Vec<&str> = out.lines().collect();
        let one = |pair: &[&str]| {
            let state: serde_json::Value = serde_json::from_str(pair[1]).unwrap();
            assert_eq!((&state["id"], &state["ociVersion"]), (&"web".into(), &"1.3.0".into()));
            format!("{} {} {}", pair[0], state["status"].as_str().unwrap(), state["pid"])
        };
        lines.chunks(2).map(one).collect()
    }
}

fn log(dir: &Path) -> Log {
    Log::open(LogOptions { path: Some(dir.join("log")), format: Format::Text, debug: false }).unwrap()
}

#[test]
fn the_hooks_of_a_creation_run_in_order_and_are_told_the_pid() {
    let fixture = Fixture::new(Hooks {
        create_runtime: vec![hook("second", ""), hook("third", "")],
        prestart: vec![hook("first", "")],
        ..Hooks::default()
    });
    fixture.subject().create(7).unwrap();
    assert_eq!(fixture.ran(), ["first creating 7", "second creating 7", "third creating 7"]);
}

#[test]
fn the_first_hook_that_fails_is_named_and_the_last_that_runs() {
    let fixture = Fixture::new(Hooks {
        create_runtime: vec![hook("good", ""), hook("bad", "echo why >&2; exit 4"), hook("never", "")],
        create_container: vec![hook("never", "")],
        ..Hooks::default()
    });
    let error = fixture.subject().create(7).unwrap_err();
    assert_eq!(chain(&error), "hooks.createRuntime[1] /bin/sh: exit status: 4: why");
    assert_eq!(fixture.ran(), ["good creating 7", "bad creating 7"]);
}

#[test]
fn poststart_is_told_that_the_container_runs() {
    let fixture = Fixture::new(Hooks { poststart: vec![hook("after", "")], ..Hooks::default() });
    fixture.subject().poststart(9).unwrap();
    assert_eq!(fixture.ran(), ["after running 9"]);
}

#[test]
fn each_poststop_hook_runs_whatever_those_before_did_and_failures_are_logged() {
    let fixture = Fixture::new(Hooks {
        poststop: vec![hook("first", "exit 1"), hook("second", "")],
        ..Hooks::default()
    });
    fixture.subject().poststop(&log(fixture.bundle.path()));
    assert_eq!(fixture.ran(), ["first stopped null", "second stopped null"]);
    let log = fs::read_to_string(fixture.bundle.path().join("log")).unwrap();
    assert!(
        log.contains("level=warning") && log.contains("hooks.poststop[0] /bin/sh: exit status: 1"),
        "{log}"
    );
}

#[test]
fn a_bundle_that_is_gone_does_not_keep_poststop_from_running() {
    let dir = tempfile::tempdir().unwrap();
    let mark = dir.path().join("ran");
    let mut touch = hook("x", "");
    touch.args[2] = format!("pwd > {}", mark.display());
    let hooks = Hooks { poststop: vec![touch], ..Hooks::default() };
    let state = HookState::default();
    Subject { hooks: &hooks, state, bundle: Path::new("/nonexistent") }.poststop(&log(dir.path()));
    assert_eq!(fs::read_to_string(mark).unwrap(), "/\n");
}

#[test]
fn oci_spec_reads_the_state_that_a_hook_gets() {
    let fixture = Fixture::new(Hooks::default());
    for (status, pid) in [("creating", Some(7)), ("running", Some(7)), ("stopped", None)] {
        let json = fixture.subject().state.json(status, pid);
        let read: oci_spec::runtime::State = serde_json::from_slice(&json).unwrap();
        assert_eq!((read.version().as_str(), read.id().as_str()), ("1.3.0", "web"));
        assert_eq!((read.status().to_string().as_str(), *read.pid()), (status, pid.map(u32::cast_signed)));
    }
}
