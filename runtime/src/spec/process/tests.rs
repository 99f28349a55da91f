use bulkhead_protocol::container::Rlimit;
use serde_json::json;

use super::super::{CheckedProcess, exec_process, fixture::bundle, load_process};
use super::*;
use bulkhead_sys::chain;

#[test]
fn args_are_taken_and_must_not_be_missing_or_empty() {
    assert_eq!(bundle().set("process.args", json!(["ls", "-l", ""])).guest().process.args, ["ls", "-l", ""]);
    assert_eq!(bundle().remove("process.args").refusal(), "process.args is missing");
    assert_eq!(bundle().set("process.args", json!([])).refusal(), "process.args is missing");
    assert_eq!(
        bundle().set("process.args", json!(["a", "b\0c"])).refusal(),
        "process.args[1]: contains a NUL byte"
    );
}

#[test]
fn env_is_taken_in_order_and_must_be_assignments() {
    assert_eq!(
        bundle().set("process.env", json!(["A=1", "B=", "C=x=y"])).guest().process.env,
        ["A=1", "B=", "C=x=y"]
    );
    assert!(bundle().set("process.env", json!(null)).guest().process.env.is_empty());
    let refusal = bundle().set("process.env", json!(["A=1", "B"])).refusal();
    assert_eq!(refusal, "process.env[1]: \"B\" is not NAME=value");
    assert!(bundle().set("process.env", json!(["=1"])).refusal().starts_with("process.env[0]: "));
}

#[test]
fn cwd_must_be_absolute() {
    assert_eq!(bundle().set("process.cwd", json!("/srv")).guest().process.cwd, "/srv");
    assert_eq!(
        bundle().set("process.cwd", json!("srv")).refusal(),
        "process.cwd: \"srv\" is not an absolute path"
    );
    assert_eq!(bundle().remove("process.cwd").refusal(), "process.cwd is missing");
}

#[test]
fn the_user_is_taken_whole() {
    let user =
        json!({"uid": 1000, "gid": 1001, "umask": 0o77, "additionalGids": [5, 10], "username": "ignored"});
    let expected = User { uid: 1000, gid: 1001, additional_gids: vec![5, 10], umask: Some(0o77) };
    assert_eq!(bundle().set("process.user", user).guest().process.user, expected);
    let root = User { uid: 0, gid: 0, additional_gids: vec![], umask: None };
    assert_eq!(bundle().remove("process.user").guest().process.user, root);
}

#[test]
fn an_id_that_means_unchanged_is_refused() {
    let refusal = |path: &str, value| bundle().set(path, value).refusal();
    assert_eq!(refusal("process.user.uid", json!(u32::MAX)), "process.user.uid: 4294967295 is not an id");
    assert_eq!(refusal("process.user.gid", json!(u32::MAX)), "process.user.gid: 4294967295 is not an id");
    let refused = refusal("process.user.additionalGids", json!([1, u32::MAX]));
    assert_eq!(refused, "process.user.additionalGids[1]: 4294967295 is not an id");
    assert!(refusal("process.user.umask", json!(0o1000)).starts_with("process.user.umask: "));
    assert!(
        refusal("process.user.uid", json!(-1)).starts_with("process.user.uid: invalid value: integer `-1`")
    );
}

#[test]
fn the_console_size_counts_only_with_a_terminal() {
    let size = json!({"height": 24, "width": 80});
    let with = bundle().set("process.consoleSize", size.clone()).guest().process;
    assert_eq!((with.terminal, with.console_size), (true, Some((80, 24))));
    let huge = json!({"height": 24, "width": 65536});
    let without = bundle().set("process.consoleSize", huge.clone()).set("process.terminal", json!(false));
    assert_eq!(without.guest().process.console_size, None);
    assert!(!without.load().unwrap().host.terminal);
    let refusal = bundle().set("process.consoleSize", huge).refusal();
    assert_eq!(refusal, "process.consoleSize.width: 65536 is more than 65535");
}

#[test]
fn capabilities_become_masks_and_none_stay_none() {
    let sets =
        bundle().set("process.capabilities", json!({"ambient": ["CAP_KILL"]})).guest().process.capabilities;
    assert_eq!(sets.unwrap().ambient, 1 << 5);
    assert_eq!(sets.unwrap().bounding, 0);
    assert_eq!(bundle().remove("process.capabilities").guest().process.capabilities, None);
    let unknown = bundle().set("process.capabilities.bounding", json!(["CAP_X"]));
    assert_eq!(unknown.warnings(), ["process.capabilities.bounding: \"CAP_X\" is not known and is left out"]);
    let refusal = bundle().set("process.capabilities.bounding", json!("CAP_KILL")).refusal();
    assert!(refusal.starts_with("process.capabilities.bounding: invalid type: string"), "{refusal}");
}

#[test]
fn rlimits_are_taken_and_must_not_repeat() {
    let limit = json!({"type": "RLIMIT_NOFILE", "soft": 1, "hard": 2});
    let taken = bundle().set("process.rlimits", json!([limit])).guest().process.rlimits;
    assert_eq!(taken, [Rlimit { resource: 7, soft: 1, hard: 2 }]);
    let refusal = bundle().set("process.rlimits", json!([limit, limit])).refusal();
    assert_eq!(refusal, "process.rlimits[1]: RLIMIT_NOFILE is given twice");
    let refusal = bundle().set("process.rlimits", json!([{"type": "RLIMIT_NOFILE", "soft": 1}])).refusal();
    assert!(refusal.starts_with("process.rlimits[0]: missing field `hard`"), "{refusal}");
}

#[test]
fn no_new_privileges_is_taken() {
    assert!(bundle().set("process.noNewPrivileges", json!(true)).guest().process.no_new_privileges);
    assert!(!bundle().remove("process.noNewPrivileges").guest().process.no_new_privileges);
    let refusal = bundle().set("process.noNewPrivileges", json!("yes")).refusal();
    assert!(refusal.starts_with("process.noNewPrivileges: invalid type: string \"yes\", expected a boolean"));
}

#[test]
fn the_oom_score_is_taken_in_its_range() {
    assert_eq!(bundle().guest().process.oom_score_adj, None);
    assert_eq!(bundle().set("process.oomScoreAdj", json!(-999)).guest().process.oom_score_adj, Some(-999));
    let refusal = bundle().set("process.oomScoreAdj", json!(1001)).refusal();
    assert_eq!(refusal, "process.oomScoreAdj: is not between -1000 and 1000");
}

#[test]
fn profiles_of_the_hosts_security_modules_are_warnings() {
    let spec = bundle()
        .set("process.apparmorProfile", json!("docker-default"))
        .set("process.selinuxLabel", json!("system_u:system_r:container_t:s0"));
    assert_eq!(spec.warnings().len(), 2);
    let empty = bundle().set("process.apparmorProfile", json!("")).set("process.selinuxLabel", json!(""));
    assert!(empty.warnings().is_empty());
}

#[test]
fn an_apparmor_profile_is_an_error_where_the_operator_wants_it() {
    let strict = Policy { apparmor: Apparmor::Refuse, ..Policy::default() };
    let spec = bundle().set("process.apparmorProfile", json!("docker-default"));
    let refusal = spec.load_within(&strict).unwrap_err().to_string();
    assert_eq!(refusal, "process.apparmorProfile is not supported: the guest has no AppArmor");
    for none in ["", "unconfined"] {
        bundle().set("process.apparmorProfile", json!(none)).load_within(&strict).unwrap();
    }
}

fn exec(flags: &ExecFlags) -> CheckedProcess {
    exec_process(&bundle().json(), flags, &Policy::default()).unwrap()
}

fn exec_refusal(flags: &ExecFlags) -> String {
    chain(&exec_process(&bundle().json(), flags, &Policy::default()).unwrap_err())
}

fn flags() -> ExecFlags {
    ExecFlags { args: vec!["id".into()], ..ExecFlags::default() }
}

#[test]
fn exec_runs_its_command_as_the_container_would() {
    let process = exec(&flags()).process;
    let own = bundle().guest().process;
    assert_eq!(process, ProcessSpec { args: vec!["id".into()], terminal: false, console_size: None, ..own });
    assert_eq!(exec_refusal(&ExecFlags::default()), "process.args is missing");
}

#[test]
fn exec_flags_add_to_the_environment_and_replace_the_rest() {
    let flags = ExecFlags {
        env: vec!["A=1".into()],
        cwd: Some("/tmp".into()),
        user: Some("1000:1001".into()),
        additional_gids: vec![7],
        terminal: true,
        no_new_privileges: true,
        capabilities: vec!["CAP_NET_ADMIN".into()],
        ..flags()
    };
    let process = exec(&flags).process;
    assert_eq!(process.env.last().unwrap(), "A=1");
    assert_eq!((process.cwd.as_str(), process.terminal, process.no_new_privileges), ("/tmp", true, true));
    assert_eq!((process.user.uid, process.user.gid), (1000, 1001));
    assert_eq!(process.user.additional_gids, [7]);
    let sets = process.capabilities.unwrap();
    for set in [sets.bounding, sets.effective, sets.permitted] {
        assert_eq!(set, 1 << 12 | 1 << 29 | 1 << 5 | 1 << 10);
    }
    assert_eq!((sets.ambient, sets.inheritable), (0, 0));
}

#[test]
fn exec_as_a_user_alone_keeps_the_group() {
    let own = bundle().set("process.user", json!({"uid": 1, "gid": 2})).json();
    let flags = ExecFlags { user: Some("9".into()), ..flags() };
    let user = exec_process(&own, &flags, &Policy::default()).unwrap().process.user;
    assert_eq!((user.uid, user.gid), (9, 2));
}

#[test]
fn a_bad_exec_flag_is_named() {
    let refusal = exec_refusal(&ExecFlags { user: Some("root".into()), ..flags() });
    assert_eq!(refusal, "--user: \"root\" is not a number (UID or UID:GID)");
    assert!(exec_refusal(&ExecFlags { user: Some("0:".into()), ..flags() }).starts_with("--user: \"\""));
    let refusal = exec_refusal(&ExecFlags { cwd: Some("tmp".into()), ..flags() });
    assert_eq!(refusal, "--cwd: \"tmp\" is not an absolute path");
    let refusal = exec_refusal(&ExecFlags { env: vec!["A".into()], ..flags() });
    assert_eq!(refusal, "--env: \"A\" is not NAME=value");
    let refusal = exec_refusal(&ExecFlags { capabilities: vec!["CAP_X".into()], ..flags() });
    assert_eq!(refusal, "--cap: \"CAP_X\" is not a capability");
}

#[test]
fn a_process_file_is_checked_like_the_containers_own() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("process.json");
    let load = |text: &str| {
        std::fs::write(&file, text).unwrap();
        load_process(&file, &Policy::default()).map_err(|error| chain(&error))
    };
    let process = load(r#"{"args": ["id"], "cwd": "/", "terminal": true}"#).unwrap().process;
    assert_eq!((process.args[0].as_str(), process.terminal), ("id", true));
    assert_eq!(load(r#"{"cwd": "/"}"#).unwrap_err(), "process.args is missing");
    assert!(load(r#"{"args": [1]}"#).unwrap_err().starts_with("process.args[0]: invalid type: integer `1`"));
    let list = load("[1]").unwrap_err();
    assert!(list.starts_with("process: invalid type: sequence, expected an object"), "{list}");
    assert!(load("{").unwrap_err().starts_with("the process file is not JSON: EOF"));
    let missing = load_process(std::path::Path::new("/nonexistent"), &Policy::default()).unwrap_err();
    let missing = chain(&missing);
    assert_eq!(missing, "read /nonexistent: No such file or directory (os error 2)");
}
