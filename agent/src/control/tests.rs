use bulkhead_protocol::agent::{AgentClient, Empty, SignalProcessRequest, SlotRequest, WaitProcessRequest};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    net::UnixStream,
};
use ttrpc::{
    Code,
    r#async::{Client, transport::Socket},
    context::with_timeout,
};

use super::*;
use crate::{
    container::Layout,
    reaper::Reaper,
    sandbox::{Sandbox, Shared},
    watches::Watches,
};

fn service() -> Service {
    let layout = Layout::guest();
    let watches = Watches::new(&layout.share, layout.volumes.clone());
    let sockets = layout.volumes.sockets().clone();
    let sandbox = Sandbox::new(Shared { reaper: Reaper::default(), streams: Arc::default(), layout });
    Service::new(sandbox, sockets, watches)
}

fn code(error: &ttrpc::Error) -> Code {
    match error {
        ttrpc::Error::RpcStatus(status) => status.code(),
        other => panic!("not a status: {other}"),
    }
}

fn deadline() -> ttrpc::context::Context {
    with_timeout(20_000_000_000)
}

/// The host's side after the greeting, and the agent's task.
async fn connected() -> (Greeting, AgentClient, tokio::task::JoinHandle<Result<(), ControlError>>) {
    let (host, agent) = UnixStream::pair().unwrap();
    let agent = tokio::spawn(async {
        let mut agent = agent;
        greet(&mut agent).await?;
        serve(agent, service()).await
    });
    let mut host = BufReader::with_capacity(1, host);
    let mut line = String::new();
    host.read_line(&mut line).await.unwrap();
    let client = AgentClient::new(Client::new(Socket::new(host.into_inner())));
    (line.parse().unwrap(), client, agent)
}

#[tokio::test]
async fn the_greeting_comes_first_and_ttrpc_follows_on_the_same_stream() {
    let (greeting, client, _agent) = connected().await;
    assert_eq!(greeting.kernel_release, kernel_release());
    assert_eq!(greeting.agent_version, env!("CARGO_PKG_VERSION"));
    assert!(client.get_time(deadline(), &Empty::new()).await.unwrap().seconds > 0);
}

#[tokio::test]
async fn serving_ends_when_the_host_closes_the_stream() {
    let (_, client, agent) = connected().await;
    drop(client);
    timeout(Duration::from_secs(20), agent).await.expect("the end is seen").unwrap().unwrap();
}

#[tokio::test]
async fn failures_carry_the_documented_codes() {
    let (_, client, _agent) = connected().await;
    let wait = WaitProcessRequest { container_id: "nobody".into(), ..WaitProcessRequest::new() };
    let error = client.wait_process(deadline(), &wait).await.unwrap_err();
    assert_eq!(code(&error), Code::NOT_FOUND);
    assert!(error.to_string().contains("container nobody does not exist"), "{error}");
    let wait = WaitProcessRequest { container_id: "a/b".into(), ..WaitProcessRequest::new() };
    let error = client.wait_process(deadline(), &wait).await.unwrap_err();
    assert_eq!(code(&error), Code::INVALID_ARGUMENT);
    let signal = SignalProcessRequest { container_id: "c".into(), signal: 99, ..SignalProcessRequest::new() };
    let error = client.signal_process(deadline(), &signal).await.unwrap_err();
    assert_eq!(code(&error), Code::INVALID_ARGUMENT);
    let slot = SlotRequest { slot: 1000, ..SlotRequest::new() };
    let error = client.bind_slot(deadline(), &slot).await.unwrap_err();
    assert_eq!(code(&error), Code::INVALID_ARGUMENT);
}
