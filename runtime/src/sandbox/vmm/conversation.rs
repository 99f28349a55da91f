//! What a VMM may say, and when. Anything else ends it: one that its guest has taken over gets no further than its own pod.
//!
//!   Spawned ──Started──▶ Jailed ──one fitting reply to each request, each phase of a boot once──▶ … ──Exited──▶ Over
//!      └──Reply(Err): its jail cannot be closed─▶ Over
//!
//! Pure: no socket and no waiting. So all that a VMM says in its life is bounded by what it is asked. Its texts are shown to
//! users and kept in files: they are cut and made printable here.

use std::collections::VecDeque;

use bulkhead_protocol::{
    limits,
    timeline::{Phase, Stamp},
    vmm::{Event, Failure, Message, Reply, Request},
};
use bulkhead_sys::text::bounded;
use tokio::sync::oneshot;

use super::{Over, Reason, VmmError};

/// The phases that a VMM stamps, each once.
pub(crate) const PHASES: [Phase; 4] =
    [Phase::Jailed, Phase::VmCreated, Phase::KernelLoaded, Phase::KernelEntered];
/// Bytes of a failure's text that are kept.
pub(crate) const TEXT: usize = 4 << 10;

pub(crate) type Answer = oneshot::Sender<Result<Reply, VmmError>>;

/// Not our protocol any more.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Violation {
    #[error("it names its process when it should not")]
    Started,
    #[error("it speaks before it has named its process")]
    Early,
    #[error("it answers what it was not asked")]
    Unasked,
    #[error("its answer is to another request")]
    Unfit,
    #[error("it reports the phase {} when it should not", .0.name())]
    Stamp(Phase),
    #[error("it speaks after its end")]
    Late,
    #[error("it sent nonsense: {0}")]
    Nonsense(String),
}

#[derive(Debug)]
pub(crate) enum Heard {
    /// Its jailed process, by the pid that it claims.
    Started(u32),
    /// It cannot be jailed, and ends.
    NotJailed(Failure),
    Stamp(Stamp),
    Reply(Answer, Result<Reply, Failure>),
    Exited(Over),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Spawned,
    Jailed,
    Over,
}

/// The reply that a request can have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wanted {
    Booted,
    Done,
    Metrics,
}

impl Wanted {
    pub(crate) fn by(request: &Request) -> Self {
        match request {
            Request::Boot(_) => Self::Booted,
            Request::Metrics => Self::Metrics,
            Request::Plug { .. }
            | Request::Unplug { .. }
            | Request::ResizeMemory { .. }
            | Request::Nudge
            | Request::Revoke { .. }
            | Request::Stop => Self::Done,
        }
    }

    fn fits(self, reply: &Reply) -> bool {
        match reply {
            Reply::Booted => self == Self::Booted,
            Reply::Done => self == Self::Done,
            Reply::Metrics(_) => self == Self::Metrics,
        }
    }
}

#[derive(Debug)]
pub(crate) struct Conversation {
    stage: Stage,
    stamped: Vec<Phase>,
    waiting: VecDeque<(Wanted, Answer)>,
}

impl Conversation {
    pub(crate) fn new() -> Self {
        Self { stage: Stage::Spawned, stamped: Vec::new(), waiting: VecDeque::new() }
    }

    /// A request was sent.
    pub(crate) fn asked(&mut self, wanted: Wanted, answer: Answer) {
        self.waiting.push_back((wanted, answer));
    }

    pub(crate) fn hear(&mut self, message: Message) -> Result<Heard, Violation> {
        match (self.stage, message) {
            (Stage::Over, _) => Err(Violation::Late),
            (Stage::Spawned, Message::Event(Event::Started { pid })) => {
                self.stage = Stage::Jailed;
                Ok(Heard::Started(pid))
            }
            (Stage::Spawned, Message::Reply(Err(failure))) => {
                self.stage = Stage::Over;
                Ok(Heard::NotJailed(shown(failure)))
            }
            (Stage::Spawned, Message::Reply(Ok(_)) | Message::Event(_)) => Err(Violation::Early),
            (Stage::Jailed, Message::Event(Event::Started { .. })) => Err(Violation::Started),
            (Stage::Jailed, Message::Event(Event::Stamp(stamp))) => {
                if !PHASES.contains(&stamp.phase) || self.stamped.contains(&stamp.phase) {
                    return Err(Violation::Stamp(stamp.phase));
                }
                self.stamped.push(stamp.phase);
                Ok(Heard::Stamp(stamp))
            }
            (Stage::Jailed, Message::Reply(reply)) => {
                let (wanted, answer) = self.waiting.pop_front().ok_or(Violation::Unasked)?;
                if reply.as_ref().is_ok_and(|reply| !wanted.fits(reply)) {
                    return Err(Violation::Unfit);
                }
                Ok(Heard::Reply(answer, reply.map_err(shown)))
            }
            (Stage::Jailed, Message::Event(Event::Exited { reason, console_tail })) => {
                self.stage = Stage::Over;
                let console_tail = bounded(&console_tail, limits::CONSOLE_TAIL);
                Ok(Heard::Exited(Over { reason: Reason::Exited(reason), console_tail }))
            }
        }
    }
}

fn shown(mut failure: Failure) -> Failure {
    failure.message = bounded(&failure.message, TEXT);
    failure
}

#[cfg(test)]
mod tests;
