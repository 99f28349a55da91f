//! Streams of bytes on the event loop, and a relay between two of them: what server and agent share of connections that do not
//! cross the pod's network.
//!
//!   program ◀─TCP or unix─▶ `Endpoint` ◀─`relay`─▶ `Endpoint` ◀─vsock (on the host a unix socket of the VMM)─▶ the other side
//!             the end                                            the hop
//!
//! A relay holds at most `CHUNK` bytes for each direction, so a reader that stalls only stalls its own writer. The end of one
//! direction is a half-close on the hop. A hop whose other side has left without one is passed on as a reset, never as an end:
//! what came so far is not whole.

mod endpoint;

use std::{
    io,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
};

pub use self::endpoint::{Endpoint, LineError, read_now};

/// Bytes held for a far side that has not taken them.
pub const CHUNK: usize = 16 << 10;

/// Copies both ways between the end, which is the connection of a program, and the hop, until both directions have ended. When it
/// fails, the caller closes both; see `Endpoint::reset_on_close`.
///
/// # Errors
/// When the end fails, or the hop does, or the other side has left the hop (`ConnectionReset`), or somebody did not read all that
/// was for him (`BrokenPipe`).
pub async fn relay(end: &Endpoint, hop: &Endpoint) -> io::Result<()> {
    let ended = AtomicBool::new(false);
    let out = async {
        let heard = copy(end, hop, || false).await?;
        // From now on an end that comes from the hop may be a reset: the kernel shows both alike.
        ended.store(true, Relaxed);
        hop.half_close().map(|()| heard)
    };
    let back = async {
        let heard = copy(hop, end, || !ended.load(Relaxed) && hop.peer_has_left()).await?;
        end.half_close().map(|()| heard)
    };
    match tokio::try_join!(out, back)? {
        (true, true) => Ok(()),
        _ => Err(io::ErrorKind::BrokenPipe.into()),
    }
}

/// False when `to` takes no more, which is no matter of the other direction: a unix socket may be closed with the last bytes that
/// are sent by it. `was_left` is asked at the end.
async fn copy(from: &Endpoint, to: &Endpoint, was_left: impl Fn() -> bool) -> io::Result<bool> {
    let mut buffer = vec![0; CHUNK];
    loop {
        match from.read(&mut buffer).await? {
            0 if was_left() => return Err(io::ErrorKind::ConnectionReset.into()),
            0 => return Ok(true),
            count => {
                if to.write_all(&buffer[..count]).await.is_err() {
                    from.stop_reading()?;
                    return Ok(false);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
