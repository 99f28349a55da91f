//! The connections of `server.sock`, counted, so that the server knows when its last answers have been written.
//!
//! ttrpc hands answers to a writer task per connection and says nothing of when they are out. A connection's socket is
//! dropped when both its reader and its writer are done, so the count at zero means that every answer is written.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use futures::stream;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{UnixListener, UnixStream},
    sync::watch,
};
use ttrpc::asynchronous::transport::Listener;

/// Shared by all connections; each holds one count.
#[derive(Debug, Clone)]
pub(crate) struct Connections(Arc<watch::Sender<usize>>);

#[derive(Debug)]
struct Counted {
    stream: UnixStream,
    count: Arc<watch::Sender<usize>>,
}

impl Connections {
    pub(crate) fn new() -> Self {
        Self(Arc::new(watch::Sender::new(0)))
    }

    /// For ttrpc, which accepts from it.
    pub(crate) fn listener(&self, listener: UnixListener) -> Listener {
        let count = self.0.clone();
        let accepted = stream::unfold((listener, count), |(listener, count)| async move {
            let accepted = accept(&listener, &count).await;
            Some((accepted, (listener, count)))
        });
        Listener::new(accepted)
    }

    /// When none is open.
    pub(crate) async fn all_closed(&self) {
        // The sender is ours: it cannot be gone.
        let _ = self.0.subscribe().wait_for(|open| *open == 0).await;
    }
}

async fn accept(listener: &UnixListener, count: &Arc<watch::Sender<usize>>) -> io::Result<Counted> {
    let (stream, _) = listener.accept().await?;
    count.send_modify(|open| *open += 1);
    Ok(Counted { stream, count: count.clone() })
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.count.send_modify(|open| *open -= 1);
    }
}

impl AsyncRead for Counted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Counted {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
