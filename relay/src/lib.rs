//! Streams of bytes on the event loop, and a relay between two of them: what server and agent share of connections that do not
//! cross the pod's network.
//!
//!   program ◀─TCP or unix─▶ `Endpoint` ◀─`relay`─▶ `Endpoint` ◀─vsock (on the host a unix socket of the VMM)─▶ the other side
//!
//! A relay holds at most `CHUNK` bytes for each direction, so a reader that stalls only stalls its own writer. The end of one
//! direction is a half-close. A stream that its peer left without one is passed on as a reset, never as an end: what came so
//! far is not whole.

mod endpoint;

use std::{
    io,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
};

pub use self::endpoint::{Endpoint, LineError, read_now};

/// Bytes held for a far side that has not taken them.
pub const CHUNK: usize = 32 << 10;

/// Copies between two stream sockets, both ways, until both directions have ended. When it fails, the caller closes both
/// endpoints; see `Endpoint::reset_on_close`.
///
/// # Errors
/// When either side fails, or leaves before it has ended its own direction (`ConnectionReset`).
pub async fn relay(left: &Endpoint, right: &Endpoint) -> io::Result<()> {
    let (left, right) = (Side::new(left), Side::new(right));
    tokio::try_join!(copy(&left, &right), copy(&right, &left))?;
    Ok(())
}

#[derive(Debug)]
struct Side<'e> {
    endpoint: &'e Endpoint,
    /// We have ended what we send to it. From then on an end that comes from it may be a reset: the kernel shows both alike.
    half_closed: AtomicBool,
}

impl<'e> Side<'e> {
    fn new(endpoint: &'e Endpoint) -> Self {
        Self { endpoint, half_closed: AtomicBool::new(false) }
    }

    fn has_left(&self) -> bool {
        !self.half_closed.load(Relaxed) && self.endpoint.peer_has_left()
    }
}

async fn copy(from: &Side<'_>, to: &Side<'_>) -> io::Result<()> {
    let mut buffer = vec![0; CHUNK];
    loop {
        match from.endpoint.read(&mut buffer).await? {
            0 if from.has_left() => return Err(io::ErrorKind::ConnectionReset.into()),
            0 => break,
            count => to.endpoint.write_all(&buffer[..count]).await?,
        }
    }
    to.half_closed.store(true, Relaxed);
    to.endpoint.half_close()
}

#[cfg(test)]
mod tests;
