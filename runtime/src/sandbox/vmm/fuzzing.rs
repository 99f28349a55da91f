//! Entry of the fuzz target `vmm_messages`: a conversation with a VMM that says anything.

use bulkhead_protocol::{
    limits,
    vmm::{Message, Request},
};
use tokio::sync::oneshot;

use super::conversation::{Conversation, Heard, PHASES, TEXT, Wanted};

/// What happens on the control socket.
#[derive(Debug)]
pub enum Step {
    Asked(Request),
    /// The bytes of a packet from the VMM.
    Heard(Vec<u8>),
}

/// Goes through the steps until the VMM has broken the protocol or is over.
///
/// # Panics
/// When a VMM gets more said than it was asked, or longer texts.
pub fn converse(steps: impl IntoIterator<Item = Step>) {
    let mut conversation = Conversation::new();
    let (mut asked, mut answered, mut stamps, mut started, mut over) = (0, 0, 0, 0, false);
    for step in steps {
        let packet = match step {
            Step::Asked(request) => {
                conversation.asked(Wanted::by(&request), oneshot::channel().0);
                asked += 1;
                continue;
            }
            Step::Heard(packet) => packet,
        };
        let Ok(message) = serde_json::from_slice::<Message>(&packet) else { return };
        let Ok(heard) = conversation.hear(message) else { return };
        assert!(!over, "it was heard after its end");
        match heard {
            Heard::Started(_) => started += 1,
            Heard::Stamp(_) => stamps += 1,
            Heard::Reply(_, reply) => {
                answered += 1;
                assert!(reply.is_ok() || reply.is_err_and(|failure| failure.message.len() <= TEXT));
            }
            Heard::NotJailed(failure) => {
                over = true;
                assert!(failure.message.len() <= TEXT);
            }
            Heard::Exited(end) => {
                over = true;
                assert!(end.console_tail.len() <= limits::CONSOLE_TAIL);
            }
        }
        assert!(started <= 1 && stamps <= PHASES.len() && answered <= asked);
    }
}
