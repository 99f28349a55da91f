//! A VMM that its guest has taken over against the server: packets on the control socket, in any order.
//!
//! It gets no more said than it is asked, each phase once, and nothing after its end; all its texts are bounded.

#![no_main]

use arbitrary::Arbitrary;
use bulkhead_protocol::{
    timeline::{Phase, Stamp},
    vmm::{Event, Failure, FailureKind, GuestExit, Message, Reply, Request},
};
use bulkhead_runtime::api::fuzzing::{Step, converse};
use libfuzzer_sys::fuzz_target;

#[derive(Debug, Arbitrary)]
enum Word {
    AskMetrics,
    AskStop,
    AskResize(u32),
    /// No message at all, perhaps.
    Bytes(Vec<u8>),
    Started(u32),
    Stamp {
        phase: u8,
        monotonic_ns: u64,
    },
    Booted,
    Done,
    Metrics(Vec<(String, u64)>),
    Failed {
        message: String,
        times: u16,
    },
    Exited {
        reason: u8,
        text: String,
        console: String,
        times: u16,
    },
}

const PHASES: [Phase; 6] = [
    Phase::Command,
    Phase::Jailed,
    Phase::VmCreated,
    Phase::KernelLoaded,
    Phase::KernelEntered,
    Phase::ProcessExited,
];

fn step(word: Word) -> Step {
    let message = match word {
        Word::AskMetrics => return Step::Asked(Request::Metrics),
        Word::AskStop => return Step::Asked(Request::Stop),
        Word::AskResize(mib) => return Step::Asked(Request::ResizeMemory { mib }),
        Word::Bytes(bytes) => return Step::Heard(bytes),
        Word::Started(pid) => Message::Event(Event::Started { pid }),
        Word::Stamp { phase, monotonic_ns } => {
            let phase = PHASES[usize::from(phase) % PHASES.len()];
            Message::Event(Event::Stamp(Stamp { phase, monotonic_ns }))
        }
        Word::Booted => Message::Reply(Ok(Reply::Booted)),
        Word::Done => Message::Reply(Ok(Reply::Done)),
        Word::Metrics(counters) => Message::Reply(Ok(Reply::Metrics(counters))),
        Word::Failed { message, times } => {
            let message = message.repeat(usize::from(times % 2048));
            Message::Reply(Err(Failure { kind: FailureKind::Invalid, message }))
        }
        Word::Exited { reason, text, console, times } => {
            let reason = match reason % 4 {
                0 => GuestExit::Reset,
                1 => GuestExit::Kvm(text.into()),
                2 => GuestExit::Forbidden { thread: text.clone(), call: text, address: 0 },
                _ => GuestExit::TripleFault(text.into()),
            };
            let console_tail = console.repeat(usize::from(times % 2048));
            Message::Event(Event::Exited { reason, console_tail })
        }
    };
    Step::Heard(serde_json::to_vec(&message).expect("a message is JSON"))
}

fuzz_target!(|words: Vec<Word>| converse(words.into_iter().map(step)));
