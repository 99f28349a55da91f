//! Entries of fuzz targets: what a guest and its VMM say, to the code that hears it.

use std::sync::OnceLock;

use bulkhead_protocol::id::ContainerId;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::UnixStream,
    runtime::{Builder, Runtime},
};

use super::stats;
pub use crate::sandbox::vmm::fuzzing::{Step, converse};
use crate::sandbox::{
    agent::{Agent, AgentError, MESSAGE_MAX},
    boot::greeting,
    key::Key,
};

/// A call of the server's to the agent whose answer says something.
#[derive(Debug, Clone, Copy)]
pub enum Call {
    Start,
    Wait,
    Processes,
    Stats,
    Time,
    Oom,
    Watches,
}

/// A guest's first bytes and, when they are a greeting, its answer to one call. Then it closes the stream.
///
/// # Panics
/// When what comes of them is not bounded.
pub fn agent(first: &[u8], call: Call, answer: &[u8]) {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    let runtime =
        RUNTIME.get_or_init(|| Builder::new_current_thread().enable_all().build().expect("start a runtime"));
    runtime.block_on(async {
        let (mut ours, mut guest) = UnixStream::pair().expect("make a pair of sockets");
        guest.write_all(first).await.expect("write the first bytes");
        if !first.contains(&b'\n') {
            guest.shutdown().await.expect("close the stream");
        }
        if greeting(&mut ours).await.is_err() {
            return;
        }
        let answers = async {
            // The request must be on its way: an answer to none is thrown away.
            let _ = guest.read(&mut [0; 1024]).await;
            let _ = guest.write_all(answer).await;
            let _ = guest.shutdown().await;
            // Not closed: that would break the stream before the answer is read.
            let _ = guest.read_to_end(&mut Vec::new()).await;
        };
        let called = called(Agent::on(ours), call);
        let (outcome, ()) = tokio::join!(called, answers);
        if let Err(AgentError::Refused { message, .. }) = outcome {
            assert!(message.len() <= MESSAGE_MAX, "a message of {} bytes", message.len());
        }
    });
}

/// The stream ends with the call.
async fn called(agent: Agent, call: Call) -> Result<(), AgentError> {
    let key = Key::init("fuzz".parse::<ContainerId>().expect("an id"));
    match call {
        Call::Start => agent.start(&key).await.map(drop),
        Call::Wait => agent.wait(&key).await.map(drop),
        Call::Processes => agent.processes(&key).await.map(drop),
        Call::Stats => agent.stats(&key).await.map(stats::metrics).map(drop),
        Call::Time => agent.time(bulkhead_protocol::limits::RPC).await.map(drop),
        Call::Oom => agent.wait_oom(&key, 0).await.map(drop),
        Call::Watches => agent.watches(true, 0).await.map(drop),
    }
}
