use super::*;

fn sandbox() -> Sandbox {
    Sandbox::new(Shared { reaper: Reaper::default(), streams: Arc::default(), layout: Layout::guest() })
}

#[test]
fn an_id_is_taken_until_its_reservation_is_dropped() {
    let sandbox = sandbox();
    let id: ContainerId = "web".parse().unwrap();
    let held = sandbox.reserve(id.clone()).unwrap();
    let error = sandbox.reserve(id.clone()).unwrap_err();
    assert_eq!(error.to_string(), "container with given ID already exists: web");
    drop(held);
    assert!(sandbox.reserve(id).is_ok());
}

#[test]
fn there_is_a_limit_to_the_containers_of_a_sandbox() {
    let sandbox = sandbox();
    let held: Vec<_> = (0..limits::CONTAINERS)
        .map(|index| sandbox.reserve(format!("c{index}").parse().unwrap()).unwrap())
        .collect();
    let error = sandbox.reserve("more".parse().unwrap()).unwrap_err();
    assert!(matches!(error, SandboxError::TooManyContainers));
    assert_eq!(sandbox.ids().len(), held.len());
}

#[tokio::test]
async fn a_container_that_is_being_made_cannot_be_spoken_to() {
    let sandbox = sandbox();
    let id: ContainerId = "web".parse().unwrap();
    let _held = sandbox.reserve(id.clone()).unwrap();
    let refused = sandbox.send(&id, |reply| Command::Start { reply }).await.unwrap_err();
    assert!(matches!(refused, SandboxError::NoContainer(_)));
}

#[test]
fn streams_must_fit_the_kind_of_process() {
    let shared = Shared { reaper: Reaper::default(), streams: Arc::default(), layout: Layout::guest() };
    let token = Some("t".parse().unwrap());
    let tty = StdioRequest { token: token.clone(), wanted: Wanted { tty: true, ..Wanted::default() } };
    assert!(matches!(shared.wire(&tty, false), Err(SandboxError::WrongStreams)));
    let none = StdioRequest { token: None, wanted: Wanted::default() };
    assert!(matches!(shared.wire(&none, true), Err(SandboxError::WrongStreams)));
    let unopened = StdioRequest { token, wanted: Wanted { stdout: true, ..Wanted::default() } };
    assert!(matches!(shared.wire(&unopened, false), Err(SandboxError::Streams(TableError::Missing { .. }))));
}
