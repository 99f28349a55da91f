//! Accepts the host's stdio streams: reads the header line, keeps the stream in `pending`, answers `ok`.
//!
//! Only the host is heard: vsock is not in any namespace, so a container could connect as well. A header has a cap
//! and a deadline, and few may be unread at once.

use std::{
    io,
    os::fd::OwnedFd,
    sync::Arc,
    time::{Duration, Instant},
};

use bulkhead_protocol::{
    limits, ports,
    stdio::{ACCEPTED, Header, HeaderError},
};
use tokio::{
    sync::Semaphore,
    time::{interval, timeout},
};
use tokio_vsock::{VMADDR_CID_ANY, VMADDR_CID_HOST, VsockAddr, VsockListener};

use super::{
    endpoint::Endpoint,
    pending::{EXPIRY, PendingError, PendingStreams},
};
use crate::say;

/// For one header line, from the accept to the answer.
const HEADER: Duration = Duration::from_secs(10);
/// Streams whose header is not read yet.
const UNREAD: usize = 64;

#[derive(Debug, thiserror::Error)]
pub enum AcceptError {
    #[error("no stdio header within {HEADER:?}")]
    Late,
    #[error("read a stdio header")]
    Read(#[source] io::Error),
    #[error("stdio header of more than {} bytes", limits::LINE)]
    TooLong,
    #[error(transparent)]
    Header(#[from] HeaderError),
    #[error(transparent)]
    PendingStreams(#[from] PendingError),
    #[error("answer a stdio header")]
    Answer(#[source] io::Error),
}

/// Binds the port, then serves it in a task of its own.
pub fn start(pending: Arc<PendingStreams>) -> io::Result<()> {
    let listener = VsockListener::bind(VsockAddr::new(VMADDR_CID_ANY, ports::STDIO))?;
    tokio::spawn(serve(listener, pending));
    Ok(())
}

async fn serve(listener: VsockListener, pending: Arc<PendingStreams>) {
    let unread = Arc::new(Semaphore::new(UNREAD));
    let mut expiry = interval(EXPIRY);
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = expiry.tick() => {
                pending.expire(Instant::now());
                continue;
            }
        };
        let stream = match accepted {
            Ok((stream, peer)) if peer.cid() == VMADDR_CID_HOST => stream,
            Ok((_, peer)) => {
                say!("refused a stdio stream from context {}", peer.cid());
                continue;
            }
            Err(error) => {
                // Out of descriptors or memory: the next expiry may free some; until then do not spin.
                say!("accept a stdio stream: {error}");
                expiry.tick().await;
                continue;
            }
        };
        // Beyond the cap the stream is dropped, which the host sees as a refusal.
        let Ok(permit) = unread.clone().try_acquire_owned() else { continue };
        let pending = pending.clone();
        tokio::spawn(async move {
            if let Err(error) = admit(OwnedFd::from(stream), &pending).await {
                say!("{}", bulkhead_sys::chain(&error));
            }
            drop(permit);
        });
    }
}

/// One stream from its first byte to the answer. On an error the stream is closed.
pub async fn admit(stream: OwnedFd, pending: &PendingStreams) -> Result<(), AcceptError> {
    // The endpoint gets a copy of the descriptor, so that the stream itself can be kept before `ok` is sent: the
    // host's next call may come at once.
    let stream_copy = stream.try_clone().map_err(AcceptError::Read)?;
    let endpoint = Endpoint::new(stream_copy).map_err(AcceptError::Read)?;
    let header = timeout(HEADER, read_header(&endpoint)).await.map_err(|_| AcceptError::Late)??;
    pending.insert(header, stream, Instant::now())?;
    timeout(HEADER, endpoint.write_all(ACCEPTED))
        .await
        .map_err(|_| AcceptError::Late)?
        .map_err(AcceptError::Answer)
}

/// Byte by byte, because what follows the line is the process's own.
async fn read_header(stream: &Endpoint) -> Result<Header, AcceptError> {
    let mut line = Vec::with_capacity(limits::LINE);
    while line.len() < limits::LINE {
        let mut byte = [0];
        match stream.read(&mut byte).await.map_err(AcceptError::Read)? {
            0 => return Err(AcceptError::Read(io::ErrorKind::UnexpectedEof.into())),
            _ => line.extend(byte),
        }
        if byte == *b"\n" {
            let line = std::str::from_utf8(&line).map_err(|_| HeaderError)?;
            return Ok(line.parse()?);
        }
    }
    Err(AcceptError::TooLong)
}

#[cfg(test)]
mod tests;
