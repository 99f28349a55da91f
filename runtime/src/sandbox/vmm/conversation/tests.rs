use bulkhead_protocol::vmm::{FailureKind, GuestExit};

use super::*;

fn jailed() -> Conversation {
    let mut conversation = Conversation::new();
    assert!(matches!(conversation.hear(started(7)), Ok(Heard::Started(7))));
    conversation
}

fn started(pid: u32) -> Message {
    Message::Event(Event::Started { pid })
}

fn stamp(phase: Phase) -> Message {
    Message::Event(Event::Stamp(Stamp::now(phase)))
}

fn exited(reason: GuestExit, console_tail: &str) -> Message {
    Message::Event(Event::Exited { reason, console_tail: console_tail.into() })
}

fn asked(conversation: &mut Conversation, request: &Request) -> oneshot::Receiver<Result<Reply, VmmError>> {
    let (answer, reply) = oneshot::channel();
    conversation.asked(Wanted::by(request), answer);
    reply
}

#[test]
fn a_process_is_named_once_and_before_all_else() {
    let mut conversation = jailed();
    for pid in [7, 1] {
        assert_eq!(conversation.hear(started(pid)).unwrap_err(), Violation::Started);
    }
    for early in [stamp(Phase::Jailed), exited(GuestExit::Reset, ""), Message::Reply(Ok(Reply::Booted))] {
        assert_eq!(Conversation::new().hear(early).unwrap_err(), Violation::Early);
    }
}

#[test]
fn each_phase_of_the_vmm_is_stamped_once_and_no_other() {
    let mut conversation = jailed();
    for phase in PHASES {
        assert!(matches!(conversation.hear(stamp(phase)), Ok(Heard::Stamp(_))));
    }
    for phase in [Phase::Jailed, Phase::KernelEntered, Phase::AgentUp, Phase::ProcessExited] {
        assert_eq!(conversation.hear(stamp(phase)).unwrap_err(), Violation::Stamp(phase));
    }
}

#[test]
fn a_reply_answers_the_oldest_request_and_fits_it() {
    let mut conversation = jailed();
    assert_eq!(conversation.hear(Message::Reply(Ok(Reply::Done))).unwrap_err(), Violation::Unasked);
    let _metrics = asked(&mut conversation, &Request::Metrics);
    let _stop = asked(&mut conversation, &Request::Stop);
    let reply = Message::Reply(Ok(Reply::Metrics(vec![])));
    assert!(matches!(conversation.hear(reply), Ok(Heard::Reply(_, Ok(Reply::Metrics(_))))));
    assert_eq!(conversation.hear(Message::Reply(Ok(Reply::Booted))).unwrap_err(), Violation::Unfit);
}

#[test]
fn nothing_comes_after_the_end() {
    let mut conversation = jailed();
    assert!(matches!(conversation.hear(exited(GuestExit::Reset, "")), Ok(Heard::Exited(_))));
    assert_eq!(conversation.hear(exited(GuestExit::Reset, "")).unwrap_err(), Violation::Late);
    let mut conversation = Conversation::new();
    let failure = Failure { kind: FailureKind::Jail, message: "jail: unshare".into() };
    assert!(matches!(conversation.hear(Message::Reply(Err(failure))), Ok(Heard::NotJailed(_))));
    assert_eq!(conversation.hear(started(7)).unwrap_err(), Violation::Late);
}

#[test]
fn texts_are_cut_and_steer_no_terminal() {
    let mut conversation = jailed();
    let _plug = asked(&mut conversation, &Request::Stop);
    let message = format!("\u{1b}[2J{}", "x".repeat(60_000));
    let failure = Failure { kind: FailureKind::Device, message };
    let Ok(Heard::Reply(_, Err(failure))) = conversation.hear(Message::Reply(Err(failure))) else { panic!() };
    assert!(failure.message.starts_with("\\u001b[2Jxxx") && failure.message.len() == TEXT);
    let tail = "\u{1b}]0;mine\u{7}".repeat(6_000);
    let Ok(Heard::Exited(over)) = conversation.hear(exited(GuestExit::Reset, &tail)) else { panic!() };
    assert!(over.console_tail.len() <= limits::CONSOLE_TAIL && !over.console_tail.contains('\u{1b}'));
}
