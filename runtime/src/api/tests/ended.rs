//! A container whose program has ended in the guest, as a command finds it that comes before the exit is known.

use super::{super::container::Container, *};
use crate::store::{SandboxDir, SandboxRecord, names, write_json};

/// The container `web`, which runs, as commands find it by its directory.
async fn running() -> (TestServer, Container) {
    let sandbox = TestServer::new().await;
    let own = store::Process::current().unwrap();
    begin(&sandbox, "web", own).await.unwrap();
    sandbox.create("web", &["sleep"]).await.unwrap();
    sandbox.client.sandbox.commit_create(bounded(), &named("web")).await.unwrap();
    sandbox.start("web", "").await.unwrap();
    let root = sandbox.root.path();
    let id = StateDir::records(root).unwrap().remove(0).unwrap().sandbox;
    let dir = SandboxDir::claim(root, &id).unwrap();
    write_json(&dir.join(names::SANDBOX), &SandboxRecord { server: own, host_container: None }).unwrap();
    std::os::unix::fs::symlink(root.join("server.sock"), dir.join(names::SERVER_SOCKET)).unwrap();
    let web = Container::open(root, &"web".parse().unwrap()).unwrap();
    (sandbox, web)
}

#[tokio::test]
async fn one_that_runs_is_not_waited_for() {
    let (_sandbox, web) = running().await;
    let ended = tokio::task::spawn_blocking(move || web.wait_ended().unwrap());
    assert!(!tokio::time::timeout(PATIENCE, ended).await.unwrap().unwrap());
}

#[tokio::test]
async fn one_that_has_ended_in_the_guest_is_waited_for() {
    let (sandbox, web) = running().await;
    sandbox.agent.machine().ends_in_silence = true;
    let ended = tokio::task::spawn_blocking(move || web.wait_ended().unwrap());
    sandbox.kill("web", 15).await.unwrap();
    assert!(tokio::time::timeout(PATIENCE, ended).await.unwrap().unwrap());
    assert_eq!(sandbox.status("web").await.unwrap(), TaskStatus::STOPPED);
}
