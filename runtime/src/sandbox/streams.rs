//! Streams to the agent, one for each connection beside the pod's network, through the VMM's vsock.
//!
//!   vsock.sock ─`CONNECT 1026\n`─▶ VMM ─`OK n\n`─▶ │ ─header─▶ agent ─`ok\n`─▶ │ bytes
//!
//! The VMM has room for few that have not said yet what they want, and the guest for few that its agent has not accepted: so
//! few are opened at once, and there is room for the streams of a process as well.

use std::{io, sync::Arc};

use bulkhead_protocol::{
    limits, ports,
    relay::{CONNECTED, Header},
};
use bulkhead_relay::{Endpoint, LineError};
use tokio::{sync::Semaphore, time::timeout};

use crate::store::Door;

/// Streams that wait for the guest at once: a quarter of what the VMM has room for.
const OPENING: usize = 32;

#[derive(Debug, thiserror::Error)]
pub(crate) enum StreamError {
    #[error("open a stream to the agent")]
    Open(#[from] io::Error),
    #[error("read the answer of the VMM or the agent")]
    Answer(#[from] LineError),
    #[error("the VMM or the agent refuses a stream")]
    Refused,
    #[error("the guest did not take a stream for {:?}", limits::RELAY_CONNECT)]
    Late,
}

/// Clones share the room.
#[derive(Debug, Clone)]
pub(crate) struct Streams {
    vsock: Door,
    room: Arc<Semaphore>,
}

impl Streams {
    pub(crate) fn new(vsock: Door) -> Self {
        Self { vsock, room: Arc::new(Semaphore::new(OPENING)) }
    }

    /// A stream to what the header names in the guest.
    ///
    /// # Errors
    /// When the guest does not take it within `limits::RELAY_CONNECT`.
    pub(crate) async fn open(&self, header: &Header) -> Result<Endpoint, StreamError> {
        timeout(limits::RELAY_CONNECT, self.try_open(header)).await.unwrap_or(Err(StreamError::Late))
    }

    /// What VMM and guest say is two lines of limited length.
    async fn try_open(&self, header: &Header) -> Result<Endpoint, StreamError> {
        let room = self.room.acquire().await;
        let stream = Endpoint::new(self.vsock.connect().await?)?;
        // The VMM keeps what follows its line until the guest has accepted.
        stream.write_all(format!("CONNECT {}\n{header}", ports::RELAY).as_bytes()).await?;
        if !stream.read_line(limits::LINE).await?.starts_with("OK ") {
            return Err(StreamError::Refused);
        }
        drop(room);
        let answer = stream.read_line(CONNECTED.len()).await?;
        if answer.as_bytes() == CONNECTED.trim_ascii_end() { Ok(stream) } else { Err(StreamError::Refused) }
    }
}

#[cfg(test)]
pub(in crate::sandbox) mod tests;
