use super::*;

const PATIENCE: Duration = Duration::from_secs(60);

fn sh(script: &str) -> Hook {
    let args = ["hook", "-c", script].map(str::to_owned).to_vec();
    Hook { path: "/bin/sh".into(), args, env: vec!["PATH=/usr/bin:/bin".into()], timeout: None }
}

fn run(hook: &Hook, state: &[u8], directory: &Path) -> Result<(), HookError> {
    hook.run(state, directory, PATIENCE, |_| ())
}

#[test]
fn a_hook_gets_the_state_its_arguments_its_directory_and_exactly_its_environment() {
    let dir = tempfile::tempdir().unwrap();
    let mut hook = sh("exec > out; cat; echo $0; exec env");
    hook.env.extend(["A=1".into(), "B=x=y".into()]);
    run(&hook, b"{state}\n", dir.path()).unwrap();
    let out = std::fs::read_to_string(dir.path().join("out")).unwrap();
    let mut lines: Vec<&str> = out.lines().collect();
    assert_eq!(lines[..2], ["{state}", "hook"]);
    lines.drain(..2);
    lines.retain(|line| !["PWD=", "SHLVL=", "_=", "OLDPWD="].iter().any(|own| line.starts_with(own)));
    lines.sort_unstable();
    assert_eq!(lines, ["A=1", "B=x=y", "PATH=/usr/bin:/bin"]);
}

#[test]
fn a_hook_that_fails_is_quoted_on_one_line() {
    let error = run(&sh("echo first; echo second >&2; exit 3"), b"", Path::new("/")).unwrap_err();
    assert_eq!(error.to_string(), "exit status: 3: first second");
}

#[test]
fn a_hook_that_is_killed_says_by_what() {
    let error = run(&sh("kill -9 $$"), b"", Path::new("/")).unwrap_err();
    assert!(error.to_string().contains("signal: 9"), "{error}");
}

#[test]
fn a_hook_that_is_missing_cannot_be_started() {
    let hook = Hook { path: "/nonexistent/hook".into(), args: vec![], env: vec![], timeout: None };
    assert!(matches!(run(&hook, b"", Path::new("/")), Err(HookError::Start { .. })));
}

#[test]
fn a_hook_that_hangs_is_killed_with_its_group() {
    let dir = tempfile::tempdir().unwrap();
    let fifo = dir.path().join("alive");
    rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
    let mut hook = sh("sleep 1000 3<>alive & exec sleep 1000 3<>alive");
    hook.timeout = Some(1);
    let error = run(&hook, b"", dir.path()).unwrap_err();
    assert!(matches!(error, HookError::Timeout { .. }), "{error}");
    // Once the last of the group is gone nobody reads the fifo.
    let flags = rustix::fs::OFlags::WRONLY | rustix::fs::OFlags::NONBLOCK;
    let deadline = Instant::now() + PATIENCE;
    while rustix::fs::open(&fifo, flags, rustix::fs::Mode::empty()).is_ok() {
        assert!(Instant::now() < deadline, "the group lives on");
        std::thread::yield_now();
    }
}

#[test]
fn a_hook_that_floods_its_output_ends_and_its_last_words_are_kept() {
    let flood = "i=0; while [ $i -lt 2000 ]; do echo aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa; i=$((i+1)); done; echo the end; exit 1";
    let error = run(&sh(flood), b"", Path::new("/")).unwrap_err().to_string();
    assert!(error.ends_with("the end") && error.len() < 2 * WORDS, "{error}");
}

#[test]
fn what_a_hook_leaves_in_the_background_is_not_waited_for() {
    run(&Hook { timeout: Some(30), ..sh("sleep 60 & exit 0") }, b"", Path::new("/")).unwrap();
}

#[test]
fn a_state_that_is_not_read_keeps_nobody_waiting() {
    run(&sh("exit 0"), &vec![b'x'; 1 << 20], Path::new("/")).unwrap();
}

#[test]
fn the_state_has_the_fields_of_the_specification() {
    let state = HookState {
        oci_version: "1.3.0".into(),
        id: "web".into(),
        bundle: "/b".into(),
        annotations: [("k".to_owned(), "v".to_owned())].into(),
    };
    let json: serde_json::Value = serde_json::from_slice(&state.json("creating", Some(7))).unwrap();
    assert_eq!(
        json,
        serde_json::json!({"ociVersion": "1.3.0", "id": "web", "status": "creating", "pid": 7, "bundle": "/b",
            "annotations": {"k": "v"}})
    );
    let stopped: serde_json::Value =
        serde_json::from_slice(&HookState::default().json("stopped", None)).unwrap();
    assert!(stopped.get("pid").is_none() && stopped.get("annotations").is_none());
}
