//! SIGKILL holds whatever the guest does. The clock is paused: deadlines pass when nothing else happens.

use super::{super::client::unbounded, *};

/// A sandbox with the container `web`, which runs, and what its agent does from now on.
async fn running(change: impl FnOnce(&FakeAgent)) -> TestServer {
    let sandbox = TestServer::new().await;
    sandbox.create("web", &["sleep"]).await.unwrap();
    sandbox.start("web", "").await.unwrap();
    change(&sandbox.agent);
    sandbox
}

/// Why the sandbox died under the container.
async fn failure(sandbox: &TestServer) -> String {
    let request = WaitProcessRequest { container_id: "web".into(), ..Default::default() };
    let exit = sandbox.client.sandbox.wait_process(unbounded(), &request).await.unwrap();
    assert_eq!(exit.signal, 9);
    exit.sandbox_failure
}

#[tokio::test(start_paused = true)]
async fn a_process_that_outlives_its_kill_takes_the_vm_along() {
    let sandbox = running(|agent| agent.machine().spares_processes = true).await;
    sandbox.kill("web", 9).await.unwrap();
    assert!(failure(&sandbox).await.starts_with("a killed process of the guest did not end for 20s"));
    assert_eq!(sandbox.status("web").await.unwrap(), TaskStatus::STOPPED);
}

#[tokio::test(start_paused = true)]
async fn a_signal_that_a_process_may_outlive_ends_nothing() {
    let sandbox = running(|agent| agent.machine().spares_processes = true).await;
    sandbox.kill("web", 15).await.unwrap();
    tokio::time::advance(bulkhead_protocol::limits::KILL * 10).await;
    assert_eq!(sandbox.status("web").await.unwrap(), TaskStatus::RUNNING);
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_does_not_answer_a_kill_loses_the_vm() {
    let sandbox = running(|agent| agent.machine().silent = true).await;
    sandbox.kill("web", 9).await.unwrap();
    assert!(failure(&sandbox).await.starts_with("the guest's agent did not answer a kill for 20s"));
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_does_not_answer_a_deletion_loses_the_vm() {
    let sandbox = TestServer::new().await;
    for id in ["web", "second"] {
        sandbox.create(id, &["sleep"]).await.unwrap();
    }
    sandbox.agent.machine().silent = true;
    let delete = DeleteRequest { id: "second".into(), ..Default::default() };
    sandbox.client.task.delete(bounded(), &delete).await.unwrap();
    assert!(
        failure(&sandbox).await.starts_with("delete a container: the guest's agent did not answer for 30s")
    );
}

#[tokio::test(start_paused = true)]
async fn a_proxy_that_dies_ends_the_vm_when_nothing_less_does() {
    let sandbox = TestServer::new().await;
    let mut proxy = Command::new("sleep").arg("600").spawn().unwrap();
    sandbox.attach("web", "", proxy.id()).await.unwrap();
    sandbox.create("web", &["sleep"]).await.unwrap();
    sandbox.agent.machine().silent = true;
    proxy.kill().unwrap();
    proxy.wait().unwrap();
    assert!(failure(&sandbox).await.starts_with("the guest's agent did not answer a kill"));
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_hangs_up_loses_the_vm() {
    let sandbox = running(|agent| agent.hang_up.notify_waiters()).await;
    assert!(failure(&sandbox).await.starts_with("lost the guest's agent: "));
}

#[tokio::test(start_paused = true)]
async fn an_exec_that_was_never_started_is_not_waited_for() {
    let sandbox = running(|_| {}).await;
    sandbox.exec("web", "e", &["sleep"]).await.unwrap();
    let kill = KillRequest { id: "web".into(), exec_id: "e".into(), signal: 9, ..Default::default() };
    let refused = sandbox.client.task.kill(bounded(), &kill).await.unwrap_err();
    assert_eq!(code(refused.into()), Code::NOT_FOUND);
    tokio::time::advance(bulkhead_protocol::limits::KILL * 10).await;
    assert_eq!(sandbox.status("web").await.unwrap(), TaskStatus::RUNNING);
}
