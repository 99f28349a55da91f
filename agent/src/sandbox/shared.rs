//! What every container needs of its sandbox, and the wiring of a process's streams.

use std::{sync::Arc, time::Instant};

use bulkhead_protocol::id::StreamToken;

use super::error::SandboxError;
use crate::{
    container::{ChildStdio, Layout},
    reaper::Reaper,
    stdio::{
        Wiring,
        pending::{PendingStreams, Streams, Wanted},
        wire,
    },
};

/// The streams that the host opened for a process.
#[derive(Debug, Clone)]
pub struct StdioRequest {
    pub token: Option<StreamToken>,
    pub wanted: Wanted,
}

/// What every container needs of its sandbox.
#[derive(Debug, Clone)]
pub struct Shared {
    pub reaper: Reaper,
    pub streams: Arc<PendingStreams>,
    pub layout: Layout,
}

impl Shared {
    /// The child's ends and ours, from the streams that the host has opened.
    pub(super) fn wire(
        &self,
        stdio: &StdioRequest,
        terminal: bool,
    ) -> Result<(ChildStdio, Wiring), SandboxError> {
        let Wanted { stdin, stdout, stderr, tty } = stdio.wanted;
        if tty != terminal || (terminal && (stdin || stdout || stderr)) {
            return Err(SandboxError::WrongStreams);
        }
        let streams = match &stdio.token {
            Some(token) => self.streams.take(token, stdio.wanted, Instant::now())?,
            None if stdio.wanted == Wanted::default() => Streams::default(),
            None => return Err(SandboxError::WrongStreams),
        };
        wire(streams, terminal).map_err(SandboxError::io("make pipes for stdio"))
    }
}

#[cfg(test)]
mod tests;
