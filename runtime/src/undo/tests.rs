use std::fs;

use super::*;
use crate::store::{Role, SandboxRecord, names};

fn id(name: &str) -> ContainerId {
    name.parse().unwrap()
}

#[test]
fn what_a_cut_off_creation_left_is_undone_by_the_next_one() {
    let root = tempfile::tempdir().unwrap();
    let web = claim(root.path(), &id("web")).unwrap();
    let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
    let process = Process::of(child.id()).unwrap();
    web.journal().append(&Entry::Process { role: Role::Server, process }).unwrap();
    fs::create_dir_all(web.join("share/web/rootfs")).unwrap();
    drop(web);

    let again = claim(root.path(), &id("web")).unwrap();
    assert!(again.journal().entries().unwrap().is_empty());
    assert!(!again.join("share").exists());
    assert!(!process.is_alive());
    child.wait().unwrap();
}

#[test]
fn of_many_that_claim_one_id_at_once_exactly_one_gets_it() {
    let root = tempfile::tempdir().unwrap();
    let claims: Vec<_> = std::thread::scope(|scope| {
        let claim = || claim(root.path(), &id("web"));
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(claim)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(claims.iter().filter(|claim| claim.is_ok()).count(), 1, "{claims:?}");
}

#[test]
fn a_container_that_is_being_made_or_was_made_keeps_its_id() {
    let root = tempfile::tempdir().unwrap();
    let taken = || match claim(root.path(), &id("web")) {
        Err(UndoError::State(StateError::Exists { .. })) => true,
        other => panic!("{other:?}"),
    };
    let web = claim(root.path(), &id("web")).unwrap();
    assert!(taken());
    fs::write(web.join(names::STATE), "{}").unwrap();
    drop(web);
    assert!(taken());
}

#[test]
fn the_process_that_undoes_is_spared() {
    let root = tempfile::tempdir().unwrap();
    let web = claim(root.path(), &id("web")).unwrap();
    web.journal().append_self(Role::Server).unwrap();
    everything(&web).unwrap();
    assert!(!web.path().exists());
}

/// A sandbox with the host container `web`, whose server is a process that sleeps, and the container.
fn pod(root: &Path) -> (std::process::Child, Process, SandboxId) {
    let server = std::process::Command::new("sleep").arg("60").spawn().unwrap();
    let process = Process::of(server.id()).unwrap();
    let sandbox = claim_sandbox(root, &"pod".parse().unwrap()).unwrap();
    sandbox.journal().append(&Entry::Process { role: Role::Server, process }).unwrap();
    let record = SandboxRecord { server: process, host_container: Some(id("web")) };
    let write = |path: &Path, json: serde_json::Value| fs::write(path, json.to_string()).unwrap();
    write(&sandbox.join(names::SANDBOX), serde_json::to_value(record).unwrap());
    for name in ["web", "guest"] {
        let record = serde_json::json!({
            "ociVersion": "1.3.0", "id": name, "bundle": "/b", "rootfs": "/b/rootfs", "created": "", "owner": "",
            "annotations": {}, "sandbox": "pod",
        });
        write(&claim(root, &id(name)).unwrap().join(names::STATE), record);
    }
    (server, process, sandbox.id().clone())
}

fn locked(root: &Path, name: &str) -> Locked {
    StateDir::open(root, &id(name)).unwrap().try_lock().unwrap().unwrap()
}

#[test]
fn a_sandbox_ends_with_its_host_container_and_with_no_other() {
    let root = tempfile::tempdir().unwrap();
    let (mut server, process, sandbox) = pod(root.path());
    container(&locked(root.path(), "guest")).unwrap();
    assert!(process.is_alive() && SandboxDir::open(root.path(), &sandbox).unwrap().is_some());
    container(&locked(root.path(), "web")).unwrap();
    assert!(!process.is_alive() && SandboxDir::open(root.path(), &sandbox).unwrap().is_none());
    server.wait().unwrap();
}

#[test]
fn a_sandbox_stays_while_its_host_container_is_there_and_is_a_leftover_afterwards() {
    let root = tempfile::tempdir().unwrap();
    let (mut server, process, sandbox) = pod(root.path());
    let taken = claim_sandbox(root.path(), &sandbox).unwrap_err();
    assert!(matches!(taken, UndoError::State(StateError::Exists { id }) if id.as_str() == "web"));
    everything(&locked(root.path(), "web")).unwrap();
    let again = claim_sandbox(root.path(), &sandbox).unwrap();
    assert!(!process.is_alive() && again.journal().entries().unwrap().is_empty());
    server.wait().unwrap();
}
