use std::time::UNIX_EPOCH;

use super::*;

fn key(exec: &str) -> Key {
    Key::parse("web", exec).unwrap()
}

fn exit(code: u32, signal: u32) -> Exit {
    Exit { code, signal, stdout_bytes: 1, stderr_bytes: 2, oom_killed: false, at: UNIX_EPOCH, failure: None }
}

fn plan() -> ExecPlan {
    let process = crate::sandbox::test_process(&["true"]);
    ExecPlan { process, ignore_paused: false, cgroup: String::new() }
}

fn created() -> Table {
    let mut table = Table::default();
    table.reserve(&key("").container, "/b".into(), None, Stdio::default()).unwrap();
    table.made(&key("").container).unwrap();
    table
}

fn running() -> Table {
    let mut table = created();
    table.start(&key("")).unwrap();
    table.started(&key(""));
    table
}

#[test]
fn an_id_is_taken_from_the_first_moment() {
    let mut table = Table::default();
    let id = key("").container;
    table.reserve(&id, "/b".into(), None, Stdio::default()).unwrap();
    let again = table.reserve(&id, "/b".into(), None, Stdio::default()).unwrap_err();
    assert_eq!(again.to_string(), "container with id exists: web");
    assert_eq!(table.check_alive(&key("")), Err(TableError::NotRunning));
}

#[test]
fn a_container_starts_once() {
    let mut table = running();
    assert_eq!(table.start(&key("")), Err(TableError::NotCreated("running")));
}

#[test]
fn an_exit_that_comes_before_the_answer_to_start_counts() {
    let mut table = created();
    table.start(&key("")).unwrap();
    table.exited(&key(""), exit(7, 0));
    table.started(&key(""));
    assert_eq!(table.process(&key("")).unwrap().status, Status::Stopped);
    assert_eq!(table.process(&key("")).unwrap().exit().unwrap().status(), 7);
    assert!(table.is_over());
}

#[test]
fn an_exec_needs_a_container_that_is_made_and_a_free_id() {
    let (init, exec) = (key(""), key("e"));
    let id = exec.exec.clone().unwrap();
    let mut table = Table::default();
    table.reserve(&init.container, "/b".into(), None, Stdio::default()).unwrap();
    assert_eq!(table.describe(&init, &id, Stdio::default(), plan()), Err(TableError::NotRunning));
    created().describe(&init, &id, Stdio::default(), plan()).unwrap();
    let mut table = running();
    table.describe(&init, &id, Stdio::default(), plan()).unwrap();
    assert_eq!(table.describe(&init, &id, Stdio::default(), plan()), Err(TableError::ExecExists(id)));
    assert!(table.start(&exec).unwrap().is_some());
    assert!(table.start(&exec).is_err());
}

#[test]
fn signals_go_to_the_living_only() {
    let mut table = running();
    table.check_alive(&key("")).unwrap();
    table.exited(&key(""), exit(0, 9));
    assert_eq!(table.check_alive(&key("")), Err(TableError::Finished));
    assert_eq!(table.process(&key("")).unwrap().exit().unwrap().status(), 137);
}

#[test]
fn waiters_are_answered_when_the_sandbox_dies_and_the_first_exit_stays() {
    let mut table = running();
    let id = key("e").exec.unwrap();
    table.describe(&key(""), &id, Stdio::default(), plan()).unwrap();
    table.start(&key("e")).unwrap();
    let (init, exec) = (table.watch(&key("")).unwrap(), table.watch(&key("e")).unwrap());
    table.exited(&key("e"), exit(3, 0));
    table.all_died(&exit(0, 9));
    assert_eq!(exec.borrow().as_ref().unwrap().status(), 3);
    assert_eq!(init.borrow().as_ref().unwrap().status(), 137);
}

#[test]
fn only_what_has_ended_or_never_ran_is_deleted() {
    let mut table = running();
    assert_eq!(table.check_deletable(&key("")), Err(TableError::NotStopped("running")));
    table.exited(&key(""), exit(0, 0));
    table.check_deletable(&key("")).unwrap();
    table.forget(&key(""));
    assert!(table.is_empty() && !table.is_over());
    assert_eq!(table.process(&key("")).unwrap_err().to_string(), "container does not exist: web");
    created().check_deletable(&key("")).unwrap();
}

#[test]
fn ids_from_requests_are_checked() {
    assert!(Key::parse("../x", "").is_err());
    assert!(Key::parse("web", "a/b").is_err());
    assert_eq!(Key::parse("web", "").unwrap(), key(""));
}

#[test]
fn a_paused_container_takes_only_an_exec_that_waits_for_its_resumption() {
    let mut table = running();
    let init = key("");
    table.check_pausable(&init.container).unwrap();
    assert_eq!(table.check_paused(&init.container), Err(TableError::NotPaused));
    table.frozen(&init.container, Event::Pause);
    table.check_paused(&init.container).unwrap();
    assert_eq!(table.check_pausable(&init.container), Err(TableError::NotRunning));
    let id: ExecId = "e".parse().unwrap();
    assert_eq!(table.describe(&init, &id, Stdio::default(), plan()), Err(TableError::ExecPaused));
    let patient = ExecPlan { ignore_paused: true, ..plan() };
    table.describe(&init, &id, Stdio::default(), patient).unwrap();
    table.check_alive(&init).unwrap();
    assert!(table.check_deletable(&init).is_err());
    table.exited(&init, exit(0, 9));
    table.frozen(&init.container, Event::Resume);
    assert_eq!(table.process(&init).unwrap().status, Status::Stopped);
}
