use super::*;

const PATIENCE: Duration = Duration::from_secs(60);

/// A shell as hook.
struct Shell {
    args: Vec<String>,
    env: Vec<String>,
    timeout: Duration,
}

fn sh(script: &str) -> Shell {
    let args = ["hook", "-c", script].map(str::to_owned).to_vec();
    Shell { args, env: vec!["PATH=/usr/bin:/bin".into()], timeout: PATIENCE }
}

fn run(shell: &Shell, state: &[u8], directory: &Path) -> Result<(), HookError> {
    let Shell { args, env, timeout } = shell;
    Hook { path: "/bin/sh", args, env, timeout: *timeout }.run(state, directory, |_| ())
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
    let hook = Hook { path: "/nonexistent/hook", args: &[], env: &[], timeout: PATIENCE };
    assert!(matches!(hook.run(b"", Path::new("/"), |_| ()), Err(HookError::Start { .. })));
}

#[test]
fn a_hook_that_hangs_is_killed_with_its_group() {
    let dir = tempfile::tempdir().unwrap();
    let fifo = dir.path().join("alive");
    rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
    let mut hook = sh("sleep 1000 3<>alive & exec sleep 1000 3<>alive");
    hook.timeout = Duration::from_secs(1);
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
fn a_hook_that_floods_its_output_ends_and_the_end_of_it_is_kept() {
    let flood = "i=0; while [ $i -lt 2000 ]; do echo aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa; i=$((i+1)); done; echo the end; exit 1";
    let error = run(&sh(flood), b"", Path::new("/")).unwrap_err().to_string();
    assert!(error.ends_with("the end") && error.len() < 2 * OUTPUT, "{error}");
}

#[test]
fn what_a_hook_leaves_in_the_background_is_not_waited_for() {
    run(&sh("sleep 60 & exit 0"), b"", Path::new("/")).unwrap();
}

#[test]
fn a_state_that_is_not_read_keeps_nobody_waiting() {
    run(&sh("exit 0"), &vec![b'x'; 1 << 20], Path::new("/")).unwrap();
}
