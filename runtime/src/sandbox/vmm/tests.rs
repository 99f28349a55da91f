use bulkhead_protocol::timeline::{Phase, Stamp};

use super::*;
use crate::sandbox::fake::PATIENCE;

fn pair() -> (Vmm, Packets, mpsc::UnboundedReceiver<News>) {
    let (ours, theirs) = PacketSocket::pair().unwrap();
    let (sender, news) = mpsc::unbounded_channel();
    (Vmm::over(ours, sender).unwrap(), Packets::new(theirs).unwrap(), news)
}

async fn answer(packets: &Packets, reply: Result<Reply, Failure>) {
    packets.send(&Message::Reply(reply), &[]).await.unwrap();
}

#[tokio::test]
async fn replies_go_to_their_requests_in_order_with_events_between() {
    let (vmm, peer, mut news) = pair();
    let first = tokio::spawn({
        let vmm = vmm.clone();
        async move { vmm.call(Request::Metrics, vec![], PATIENCE).await }
    });
    peer.receive::<Request>().await.unwrap();
    let stamp = Stamp::now(Phase::VmCreated);
    peer.send(&Message::Event(Event::Stamp(stamp)), &[]).await.unwrap();
    answer(&peer, Ok(Reply::Metrics(vec![("a.b".into(), 1)]))).await;
    assert!(matches!(first.await.unwrap(), Ok(Reply::Metrics(_))));
    assert!(matches!(news.recv().await, Some(News::Stamp(s)) if s == stamp));
}

#[tokio::test]
async fn a_refusal_is_told_in_the_vmms_words() {
    let (vmm, peer, _news) = pair();
    tokio::spawn(async move {
        peer.receive::<Request>().await.unwrap();
        let kind = bulkhead_protocol::vmm::FailureKind::Memory;
        answer(&peer, Err(Failure { kind, message: "64 MiB do not hold the kernel".into() })).await;
        peer.receive::<Request>().await.ok();
    });
    let error = vmm.call(Request::Metrics, vec![], PATIENCE).await.unwrap_err();
    assert_eq!(error.to_string(), "64 MiB do not hold the kernel");
}

#[tokio::test]
async fn the_last_words_come_before_the_end() {
    let (vmm, peer, _news) = pair();
    let exited = Event::Exited { reason: GuestExit::Panic, console_tail: "oops\n".into() };
    peer.send(&Message::Event(exited), &[]).await.unwrap();
    drop(peer);
    let over = vmm.wait_over().await;
    assert_eq!(over.to_string(), "the guest kernel panicked; the console ended with:\noops");
    let late = vmm.call(Request::Metrics, vec![], PATIENCE).await.unwrap_err();
    assert_eq!(late.to_string(), over.to_string());
}

#[tokio::test]
async fn a_forbidden_call_is_told_with_its_thread() {
    let (vmm, peer, _news) = pair();
    let reason =
        GuestExit::Forbidden { thread: "fs1".into(), call: "ptrace (101)".into(), address: 0x7f00_1234 };
    let exited = Event::Exited { reason, console_tail: String::new() };
    peer.send(&Message::Event(exited), &[]).await.unwrap();
    drop(peer);
    assert_eq!(
        vmm.wait_over().await.to_string(),
        "the VMM made the system call ptrace (101) in its thread fs1, which its seccomp filter forbids (at 0x7f001234)"
    );
}

#[tokio::test]
async fn a_request_that_waits_when_the_vmm_dies_is_answered() {
    let (vmm, peer, _news) = pair();
    tokio::spawn(async move {
        peer.receive::<Request>().await.unwrap();
    });
    let error = vmm.call(Request::Stop, vec![], PATIENCE).await.unwrap_err();
    assert_eq!(error.to_string(), "the VMM died");
}

#[tokio::test]
async fn a_vmm_that_does_not_answer_is_not_waited_for() {
    let (vmm, _peer, _news) = pair();
    let error = vmm.call(Request::Metrics, vec![], Duration::from_millis(20)).await.unwrap_err();
    assert!(matches!(error, VmmError::Silent { .. }), "{error}");
}

#[tokio::test]
async fn nonsense_from_the_vmm_ends_it() {
    let (vmm, peer, _news) = pair();
    peer.send(&"hello", &[]).await.unwrap();
    let over = vmm.wait_over().await;
    assert!(over.to_string().contains("nonsense"), "{over}");
    assert!(matches!(peer.receive::<Request>().await, Err(PacketError::Closed)));
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
