//! Accepts the host's stdio streams: reads the header line, keeps the stream in `pending`, answers `ok`.
//!
//! A header has a cap and a deadline, and few may be unread at once.

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
use bulkhead_relay::{Endpoint, LineError};
use tokio::{
    sync::Semaphore,
    time::{interval, timeout},
};

use super::pending::{EXPIRY, PendingError, PendingStreams};
use crate::{from_host::HostListener, say};

/// For one header line, from the accept to the answer.
const HEADER: Duration = Duration::from_secs(10);
/// Streams whose header is not read yet.
const UNREAD: usize = 64;

#[derive(Debug, thiserror::Error)]
pub enum AcceptError {
    #[error("no stdio header within {HEADER:?}")]
    Late,
    #[error("take a stdio stream")]
    Take(#[source] io::Error),
    #[error("read a stdio header")]
    Line(#[source] LineError),
    #[error(transparent)]
    Header(#[from] HeaderError),
    #[error(transparent)]
    PendingStreams(#[from] PendingError),
    #[error("answer a stdio header")]
    Answer(#[source] io::Error),
}

/// Binds the port, then serves it in a task of its own.
pub fn start(pending: Arc<PendingStreams>) -> io::Result<()> {
    let listener = HostListener::bind(ports::STDIO)?;
    tokio::spawn(serve(listener, pending));
    Ok(())
}

async fn serve(mut listener: HostListener, pending: Arc<PendingStreams>) {
    let unread = Arc::new(Semaphore::new(UNREAD));
    let mut expiry = interval(EXPIRY);
    loop {
        let stream = tokio::select! {
            stream = listener.accept() => stream,
            _ = expiry.tick() => {
                pending.expire(Instant::now());
                continue;
            }
        };
        // Beyond the cap the stream is dropped, which the host sees as a refusal.
        let Ok(permit) = unread.clone().try_acquire_owned() else { continue };
        let pending = pending.clone();
        tokio::spawn(async move {
            if let Err(error) = admit(stream, &pending).await {
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
    let stream_copy = stream.try_clone().map_err(AcceptError::Take)?;
    let endpoint = Endpoint::new(stream_copy).map_err(AcceptError::Take)?;
    let line = timeout(HEADER, endpoint.read_line(limits::LINE)).await.map_err(|_| AcceptError::Late)?;
    let header: Header = line.map_err(AcceptError::Line)?.parse()?;
    pending.insert(header, stream, Instant::now())?;
    timeout(HEADER, endpoint.write_all(ACCEPTED))
        .await
        .map_err(|_| AcceptError::Late)?
        .map_err(AcceptError::Answer)
}

#[cfg(test)]
mod tests;
