//! The control stream: the agent connects to the host, says who it is, then serves ttrpc on that same connection.
//!
//!   agent ──connect 2:1024──▶ VMM ──▶ a descriptor that the server holds already: nobody listens, nobody polls
//!
//! One connection for the life of the VM. When it ends, by whichever side, the sandbox is over: `serve` returns.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bulkhead_protocol::{agent::create_agent, greeting::Greeting, ports};
use futures::stream;
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf},
    sync::oneshot,
    time::timeout,
};
use tokio_vsock::{VMADDR_CID_HOST, VsockAddr, VsockStream};
use ttrpc::r#async::{Server, transport::Listener};

use crate::service::Service;

/// For the VMM to take the connection and the greeting.
const CONNECT: Duration = Duration::from_secs(30);

#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    #[error("connect to the host's port {port}", port = ports::AGENT)]
    Connect(#[source] io::Error),
    #[error("the host did not take the connection within {CONNECT:?}")]
    Late,
    #[error("send the greeting")]
    Greet(#[source] io::Error),
    #[error("serve ttrpc")]
    Serve(#[source] ttrpc::Error),
}

pub async fn connect() -> Result<VsockStream, ControlError> {
    let host = VsockAddr::new(VMADDR_CID_HOST, ports::AGENT);
    timeout(CONNECT, VsockStream::connect(host))
        .await
        .map_err(|_| ControlError::Late)?
        .map_err(ControlError::Connect)
}

/// Says who we are. From then on the host may open streams and send requests.
pub async fn greet<S: AsyncWrite + Unpin>(stream: &mut S) -> Result<(), ControlError> {
    let greeting = Greeting::new(&kernel_release()).to_string();
    timeout(CONNECT, stream.write_all(greeting.as_bytes()))
        .await
        .map_err(|_| ControlError::Late)?
        .map_err(ControlError::Greet)
}

/// Answers requests until the stream ends.
pub async fn serve<S>(stream: S, service: Service) -> Result<(), ControlError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + Sync + 'static,
{
    let (end, ended) = oneshot::channel();
    let connection = Watched { stream, end: Some(end) };
    let mut server = Server::new()
        .add_listener(Listener::new(stream::iter([Ok(connection)])))
        .register_service(create_agent(Arc::new(service)));
    server.start().await.map_err(ControlError::Serve)?;
    // The sender is lost when the server drops the connection: over as well.
    let _ = ended.await;
    Ok(())
}

fn kernel_release() -> String {
    rustix::system::uname().release().to_string_lossy().into_owned()
}

/// A stream that tells when it has ended, or was dropped.
struct Watched<S> {
    stream: S,
    end: Option<oneshot::Sender<()>>,
}

impl<S> Watched<S> {
    fn ended(&mut self) {
        if let Some(end) = self.end.take() {
            let _ = end.send(());
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(cx, buffer);
        match &polled {
            Poll::Ready(Ok(())) if buffer.filled().len() > before || buffer.capacity() == 0 => {}
            Poll::Ready(Ok(()) | Err(_)) => self.ended(),
            Poll::Pending => {}
        }
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests;
