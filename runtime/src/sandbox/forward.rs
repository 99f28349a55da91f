//! Connections to the loopback addresses of the pod's network namespace on the host, carried to those of the guest: that is how
//! containerd serves `kubectl port-forward`, for in an ordinary container the two are the same.
//!
//!   client ─127.0.0.1:PORT─▶ `network::Loopback` ─▶ server ─vsock.sock─▶ VMM ─vsock─▶ agent ─127.0.0.1:PORT─▶ program
//!
//! The kernel has accepted the client before the guest is asked. So a port on which nobody listens there is a connection that
//! is reset at once. All of it ends with the server.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use bulkhead_protocol::{
    id::ContainerId,
    limits,
    relay::{Family, Header, LoopbackPort},
};
use bulkhead_relay::{Endpoint, relay};
use bulkhead_sys::chain;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    task::spawn_blocking,
    time::sleep,
};

use super::streams::{StreamError, Streams};
use crate::{
    log::note,
    network::{Loopback, Meant, Namespace, NetworkError},
};

/// After an accept that failed for want of descriptors or memory: others may give some back meanwhile.
const PAUSE: Duration = Duration::from_secs(1);

#[derive(Debug, thiserror::Error)]
enum ListenError {
    #[error(transparent)]
    Network(#[from] NetworkError),
    #[error("listen on the event loop")]
    Loop(#[source] io::Error),
}

/// Why a client was reset. Nobody is told but the client: the guest, and who dials, can have as many as they like.
#[derive(Debug, thiserror::Error)]
enum ForwardError {
    #[error("carry the connection")]
    Carry(#[from] io::Error),
    #[error(transparent)]
    Stream(#[from] StreamError),
    #[error("there is no port to connect to")]
    NoPort,
}

/// What a connection needs.
#[derive(Debug, Clone)]
pub(crate) struct Forward {
    streams: Streams,
    /// The container whose network namespace in the guest is the pod's; `None` when nothing is to be forwarded.
    container: Option<ContainerId>,
    listening: Arc<AtomicBool>,
    places: Arc<Semaphore>,
}

impl Forward {
    pub(crate) fn new(streams: Streams, container: Option<ContainerId>) -> Self {
        let places = Arc::new(Semaphore::new(limits::RELAYS));
        Self { streams, container, listening: Arc::default(), places }
    }

    /// Listens in the pod's network namespace, once. Where that cannot be, the pod goes on without, and the log says why.
    pub(crate) async fn listen(&self, namespace: &Namespace) {
        if self.container.is_none() || self.listening.swap(true, Relaxed) {
            return;
        }
        if let Err(error) = self.try_listen(namespace.clone()).await {
            note(&format!("connections to the pod's loopback addresses do not reach it: {}", chain(&error)));
        }
    }

    async fn try_listen(&self, namespace: Namespace) -> Result<(), ListenError> {
        let taken = spawn_blocking(move || Loopback::take(&namespace)).await;
        let Loopback { listeners, link, meant } =
            taken.map_err(|error| ListenError::Loop(error.into()))??;
        let link = Arc::new(link);
        for listener in listeners {
            let listener = TcpListener::from_std(listener).map_err(ListenError::Loop)?;
            let (forward, link) = (self.clone(), link.clone());
            tokio::spawn(async move {
                forward.serve(listener, meant).await;
                drop(link);
            });
        }
        Ok(())
    }

    async fn serve(&self, listener: TcpListener, meant: Meant) {
        loop {
            let client = match listener.accept().await {
                Ok((client, _)) => client,
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => continue,
                Err(error) => {
                    note(&format!("accept a connection to the pod's loopback addresses: {error}"));
                    sleep(PAUSE).await;
                    continue;
                }
            };
            let place = self.places.clone().try_acquire_owned();
            let forward = self.clone();
            tokio::spawn(async move {
                // Beyond the cap the client is reset, like one whose connection fails.
                let Ok(client) = reset_when_dropped(client) else { return };
                if let Ok(place) = place {
                    let _ = forward.carry(client, meant).await;
                    drop(place);
                }
            });
        }
    }

    /// One connection, from the accept to the end of both directions.
    async fn carry(&self, client: TcpStream, meant: Meant) -> Result<(), ForwardError> {
        let container = self.container.clone().ok_or(ForwardError::NoPort)?;
        let meant = meant.of(&client, client.local_addr()?)?;
        let header = header(container, meant).ok_or(ForwardError::NoPort)?;
        let client = Endpoint::new(client.into_std()?.into())?;
        let guest = self.streams.open(&header).await?;
        relay(&client, &guest).await?;
        Ok(client.reset_on_close(false)?)
    }
}

fn reset_when_dropped(client: TcpStream) -> io::Result<TcpStream> {
    rustix::net::sockopt::set_socket_linger(&client, Some(Duration::ZERO))?;
    client.set_nodelay(true)?;
    Ok(client)
}

/// `None` for port 0, which no connection has.
fn header(container: ContainerId, meant: SocketAddr) -> Option<Header> {
    let family = if meant.is_ipv4() { Family::V4 } else { Family::V6 };
    Some(Header::Loopback(LoopbackPort { container, family, port: meant.port().try_into().ok()? }))
}

#[cfg(test)]
mod tests;
