use super::*;

/// A context that logs nowhere.
pub(super) fn context() -> Context {
    let options = LogOptions { path: None, format: Format::Text, debug: false };
    Context {
        root: "/nonexistent".into(),
        log: Log::open(options).unwrap(),
        cgroup_manager: CgroupManager::Cgroupfs,
        config: None,
    }
}

fn parse(arguments: &[&str]) -> Result<Cli, clap::Error> {
    Cli::try_parse_from(std::iter::once("bulkhead").chain(arguments.iter().copied()))
}

#[test]
fn the_table_of_arguments_is_consistent() {
    <Cli as clap::CommandFactory>::command().debug_assert();
}

#[test]
fn the_version_is_three_words_and_a_line_with_the_spec() {
    let error = parse(&["--version"]).unwrap_err();
    assert_eq!(error.to_string(), format!("bulkhead version {}\nspec: 1.3.0\n", env!("CARGO_PKG_VERSION")));
    assert_eq!(error.kind(), clap::error::ErrorKind::DisplayVersion);
    assert_eq!(parse(&["-v"]).unwrap_err().kind(), clap::error::ErrorKind::DisplayVersion);
}

#[test]
fn the_global_flags_of_runc_and_crun_are_taken_before_the_command() {
    let cli = parse(&[
        "--debug",
        "--log",
        "/l",
        "--log-format=json",
        "--root",
        "/r",
        "--systemd-cgroup",
        "--rootless=auto",
        "--cgroup-manager",
        "disabled",
        "--config=/c",
        "features",
    ])
    .unwrap();
    assert!(cli.debug && cli.systemd_cgroup);
    assert_eq!((cli.log, cli.log_format), (Some("/l".into()), Format::Json));
    assert_eq!((cli.root, cli.config), (Some("/r".into()), Some("/c".into())));
    assert_eq!(cli.cgroup_manager, CgroupManager::Disabled);
}

#[test]
fn the_log_format_is_text_unless_asked_for_json() {
    assert_eq!(parse(&["features"]).unwrap().log_format, Format::Text);
    assert!(parse(&["--log-format=xml", "features"]).is_err());
}

#[test]
fn a_value_that_a_flag_does_not_know_is_refused() {
    assert!(parse(&["--rootless=maybe", "features"]).is_err());
    assert!(parse(&["--cgroup-manager=mine", "features"]).is_err());
    assert!(parse(&["nonsense"]).is_err());
}

#[test]
fn the_last_of_a_repeated_flag_counts() {
    assert_eq!(parse(&["--root=/a", "--root=/b", "features"]).unwrap().root, Some("/b".into()));
}

#[test]
fn the_flags_of_exec_end_at_the_id() {
    let exec = |arguments: &[&str]| format!("{:?}", parse(arguments).unwrap().command);
    let text = exec(&["exec", "-e", "A=1", "web", "ls", "-t", "--env", "B", "--", "-x"]);
    assert!(text.contains(r#"env: ["A=1"]"#) && text.contains("tty: false"), "{text}");
    assert!(text.contains(r#"id_and_command: ["web", "ls", "-t", "--env", "B", "--", "-x"]"#), "{text}");
    // As with runc, what follows the id is the command even when it looks like a flag.
    let text = exec(&["exec", "web", "-t", "ls"]);
    assert!(
        text.contains(r#"tty: false"#) && text.contains(r#"id_and_command: ["web", "-t", "ls"]"#),
        "{text}"
    );
}

#[test]
fn exec_wants_an_id() {
    assert!(parse(&["exec", "--tty"]).is_err());
    parse(&["exec", "--process", "/p.json", "web"]).unwrap();
}

#[test]
fn flags_after_the_id_mean_the_same_as_before_it() {
    for (before, after) in [
        ("create --bundle B --no-pivot web", "create web --bundle B --no-pivot"),
        ("run --detach --bundle B web", "run web --bundle B --detach"),
        ("delete --force web", "delete web --force"),
        ("kill --all web 9", "kill web 9 --all"),
        ("kill --all web 9", "kill web --all 9"),
        ("list -q -f json", "list -f json -q"),
        ("events --stats web", "events web --stats"),
        ("update --pids-limit 5 web", "update web --pids-limit 5"),
    ] {
        let command =
            |line: &str| format!("{:?}", parse(&line.split(' ').collect::<Vec<_>>()).unwrap().command);
        assert_eq!(command(before), command(after), "{after}");
    }
    assert!(parse(&["run"]).is_err() && parse(&["create", "web", "second"]).is_err());
}

#[test]
fn checkpoint_and_restore_are_refused_in_clear_words_whatever_follows() {
    for command in ["checkpoint", "restore"] {
        let cli = parse(&[command, "--image-path", "/i", "web"]).unwrap();
        let error = cli.command.run(&context()).unwrap_err();
        assert!(error.to_string().starts_with(&format!("{command} is not supported")), "{error}");
    }
}

#[test]
fn state_is_in_the_session_of_whoever_is_not_a_machines_root() {
    let root = |root, session: Option<&str>| default_root_of(root, session.map(OsString::from));
    assert_eq!(root(true, Some("/run/user/1000")), Path::new("/run/bulkhead"));
    assert_eq!(root(false, Some("/run/user/1000")), Path::new("/run/user/1000/bulkhead"));
    for none in [None, Some("")] {
        assert_eq!(root(false, none), Path::new("/run/bulkhead"));
    }
}
