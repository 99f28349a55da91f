use bulkhead_protocol::{
    timeline::Phase,
    vmm::{Event, FailureKind},
};

use super::*;
use crate::sandbox::fake::PATIENCE;

/// A VMM that has started, and its end of the socket.
async fn pair() -> (Vmm, Packets, Stamps) {
    let (vmm, peer, stamps) = silent_pair();
    say(&peer, Event::Started { pid: 7 }).await;
    assert_eq!(vmm.started(PATIENCE).await.unwrap(), 7);
    (vmm, peer, stamps)
}

fn silent_pair() -> (Vmm, Packets, Stamps) {
    let (ours, theirs) = PacketSocket::pair().unwrap();
    let (vmm, stamps) = Vmm::over(ours).unwrap();
    (vmm, Packets::new(theirs).unwrap(), stamps)
}

async fn say(peer: &Packets, event: Event) {
    peer.send(&Message::Event(event), &[]).await.unwrap();
}

async fn answer(packets: &Packets, reply: Result<Reply, Failure>) {
    packets.send(&Message::Reply(reply), &[]).await.unwrap();
}

#[tokio::test]
async fn replies_go_to_their_requests_in_order_with_events_between() {
    let (vmm, peer, mut stamps) = pair().await;
    let first = tokio::spawn({
        let vmm = vmm.clone();
        async move { vmm.call(Request::Metrics, vec![], PATIENCE).await }
    });
    peer.receive::<Request>().await.unwrap();
    let stamp = Stamp::now(Phase::VmCreated);
    say(&peer, Event::Stamp(stamp)).await;
    answer(&peer, Ok(Reply::Metrics(vec![("a.b".into(), 1)]))).await;
    assert!(matches!(first.await.unwrap(), Ok(Reply::Metrics(_))));
    assert_eq!(stamps.recv().await, Some(stamp));
}

#[tokio::test]
async fn a_refusal_is_told_in_the_vmms_words() {
    let (vmm, peer, _stamps) = pair().await;
    tokio::spawn(async move {
        peer.receive::<Request>().await.unwrap();
        let kind = FailureKind::Memory;
        answer(&peer, Err(Failure { kind, message: "64 MiB do not hold the kernel".into() })).await;
        peer.receive::<Request>().await.ok();
    });
    let error = vmm.call(Request::Metrics, vec![], PATIENCE).await.unwrap_err();
    assert_eq!(error.to_string(), "64 MiB do not hold the kernel");
}

#[tokio::test]
async fn the_last_words_come_before_the_end() {
    let (vmm, peer, _stamps) = pair().await;
    let exited = Event::Exited { reason: GuestExit::Panic, console_tail: "oops\n".into() };
    say(&peer, exited).await;
    drop(peer);
    let over = vmm.wait_over().await;
    assert_eq!(over.to_string(), "the guest kernel panicked; the console ended with:\noops");
    let late = vmm.call(Request::Metrics, vec![], PATIENCE).await.unwrap_err();
    assert_eq!(late.to_string(), over.to_string());
}

#[tokio::test]
async fn a_forbidden_call_is_told_with_its_thread() {
    let (vmm, peer, _stamps) = pair().await;
    let reason =
        GuestExit::Forbidden { thread: "fs1".into(), call: "ptrace (101)".into(), address: 0x7f00_1234 };
    say(&peer, Event::Exited { reason, console_tail: String::new() }).await;
    drop(peer);
    assert_eq!(
        vmm.wait_over().await.to_string(),
        "the VMM made the system call ptrace (101) in its thread fs1, which its seccomp filter forbids (at 0x7f001234)"
    );
}

#[tokio::test]
async fn a_request_that_waits_when_the_vmm_dies_is_answered() {
    let (vmm, peer, _stamps) = pair().await;
    tokio::spawn(async move {
        peer.receive::<Request>().await.unwrap();
    });
    let error = vmm.call(Request::Stop, vec![], PATIENCE).await.unwrap_err();
    assert_eq!(error.to_string(), "the VMM died");
}

#[tokio::test]
async fn a_vmm_that_does_not_answer_is_not_waited_for() {
    let (vmm, _peer, _stamps) = pair().await;
    let error = vmm.call(Request::Metrics, vec![], Duration::from_millis(20)).await.unwrap_err();
    assert!(matches!(error, VmmError::Silent { .. }), "{error}");
}

#[tokio::test]
async fn nonsense_from_the_vmm_ends_it() {
    let (vmm, peer, _stamps) = pair().await;
    peer.send(&"hello", &[]).await.unwrap();
    let over = vmm.wait_over().await;
    assert!(over.to_string().contains("nonsense"), "{over}");
    assert!(matches!(peer.receive::<Request>().await, Err(PacketError::Closed)));
}

#[tokio::test]
async fn a_vmm_that_names_another_process_later_is_ended() {
    let (vmm, peer, _stamps) = pair().await;
    say(&peer, Event::Started { pid: 1 }).await;
    let over = vmm.wait_over().await;
    assert_eq!(over.to_string(), "the VMM broke the protocol: it names its process when it should not");
    assert!(matches!(peer.receive::<Request>().await, Err(PacketError::Closed)));
    assert_eq!(vmm.started(PATIENCE).await.unwrap(), 7);
}

#[tokio::test]
async fn a_vmm_that_cannot_be_jailed_says_so_before_it_is_asked() {
    let (vmm, peer, _stamps) = silent_pair();
    answer(&peer, Err(Failure { kind: FailureKind::Jail, message: "jail: unshare".into() })).await;
    assert_eq!(vmm.started(PATIENCE).await.unwrap_err().to_string(), "jail: unshare");
}

#[tokio::test(start_paused = true)]
async fn a_vmm_is_ended_for_the_servers_reason_whether_it_says_more_or_not() {
    let (vmm, peer, _stamps) = pair().await;
    let ended = tokio::spawn({
        let vmm = vmm.clone();
        async move { vmm.end("the guest is silent".into()).await }
    });
    assert_eq!(peer.receive::<Request>().await.unwrap().0, Request::Stop);
    answer(&peer, Ok(Reply::Done)).await;
    say(&peer, Event::Exited { reason: GuestExit::Stopped, console_tail: "oops\n".into() }).await;
    drop(peer);
    ended.await.unwrap();
    assert_eq!(vmm.wait_over().await.to_string(), "the guest is silent; the console ended with:\noops");

    let (vmm, peer, _stamps) = pair().await;
    vmm.end("the guest is silent".into()).await;
    assert_eq!(vmm.wait_over().await.to_string(), "the guest is silent");
    drop(peer);
}

#[test]
fn a_descriptor_is_passed_under_the_number_agreed_on() {
    for number in [3, 9] {
        let (read, mut write) = std::io::pipe().unwrap();
        std::io::Write::write_all(&mut write, b"hello\n").unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", &format!("read line <&{number}; echo $line")]);
        pass_as(&mut command, read.into(), number);
        let output = command.output().unwrap();
        assert_eq!(output.stdout, b"hello\n");
    }
}
