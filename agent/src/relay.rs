//! Connections that come past the pod's network: the host opens a stream for each, and says where it belongs.
//!
//!   vsock stream ─header line─▶ a port of the loopback interface in a container's network namespace  ─┐
//!                            └▶ a connection that waits in `host_sockets`                            ─┴▶ `ok` ─▶ bytes both ways
//!
//! A program that listens on the other loopback address alone is reached as well: who dials `localhost` tries one address
//! after the other, and the host has taken the connection before it asks here.

use std::{
    io,
    net::TcpStream,
    num::NonZeroU16,
    os::fd::{AsFd, OwnedFd},
    sync::Arc,
    time::Duration,
};

use bulkhead_protocol::{
    limits, ports,
    relay::{CONNECTED, Family, Header, HeaderError, LoopbackPort},
};
use bulkhead_relay::{Endpoint, LineError, relay};
use bulkhead_sys::{chain, namespace::visit_network};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with, sockopt::set_tcp_nodelay};
use tokio::{
    net::TcpSocket,
    sync::{OwnedSemaphorePermit, Semaphore},
    task::spawn_blocking,
    time::{Instant, timeout, timeout_at},
};

use crate::{
    from_host::HostListener,
    host_sockets::HostSockets,
    sandbox::{Sandbox, SandboxError, command::Command},
    say,
};

/// For the header line and the answer.
const HEADER: Duration = Duration::from_secs(10);

#[derive(Debug, thiserror::Error)]
pub enum RelayError {
    #[error("take a relayed stream")]
    Take(#[source] io::Error),
    #[error("read a relay header")]
    Line(#[source] LineError),
    #[error(transparent)]
    Header(#[from] HeaderError),
    #[error("find the network of a relayed connection")]
    Container(#[from] SandboxError),
    #[error("make a socket for a relayed connection")]
    Socket(#[source] io::Error),
    #[error("connect to port {port} of the loopback interface")]
    Connect { port: u16, source: io::Error },
    #[error("connection {0} does not wait any more")]
    NotWaiting(u64),
    #[error("a relayed connection was not made in time")]
    Late,
    #[error("a relayed connection broke")]
    Broken(#[source] io::Error),
}

impl RelayError {
    /// False for what clients, programs and containers that end do all the time.
    fn is_a_fault(&self) -> bool {
        match self {
            Self::Container(_)
            | Self::Connect { .. }
            | Self::NotWaiting(_)
            | Self::Late
            | Self::Broken(_) => false,
            Self::Take(_) | Self::Line(_) | Self::Header(_) | Self::Socket(_) => true,
        }
    }
}

/// Binds the port, then serves it in a task of its own.
///
/// # Errors
/// Those of bind(2).
pub fn start(sandbox: Sandbox, sockets: HostSockets) -> io::Result<()> {
    let listener = HostListener::bind(ports::RELAY)?;
    tokio::spawn(serve(listener, Guest { sandbox, sockets }));
    Ok(())
}

/// Where streams may lead.
#[derive(Debug, Clone)]
struct Guest {
    sandbox: Sandbox,
    sockets: HostSockets,
}

async fn serve(mut listener: HostListener, guest: Guest) {
    // As many of each kind.
    let places = Arc::new(Semaphore::new(limits::RELAYS * 2));
    loop {
        let stream = listener.accept().await;
        // Beyond the cap the stream is dropped, which the host sees as a refusal.
        let Ok(place) = places.clone().try_acquire_owned() else { continue };
        let guest = guest.clone();
        tokio::spawn(async move {
            if let Err(error) = guest.carry(stream).await
                && error.is_a_fault()
            {
                say!("{}", chain(&error));
            }
            drop(place);
        });
    }
}

impl Guest {
    /// One stream from its header to the end of both directions.
    async fn carry(&self, stream: OwnedFd) -> Result<(), RelayError> {
        let host = Endpoint::new(stream).map_err(RelayError::Take)?;
        let line = timeout(HEADER, host.read_line(limits::LINE)).await.map_err(|_| RelayError::Late)?;
        let header: Header = line.map_err(RelayError::Line)?.parse()?;
        let deadline = Instant::now() + limits::RELAY_CONNECT;
        let (program, _place) =
            timeout_at(deadline, self.program(&header)).await.map_err(|_| RelayError::Late)??;
        let answered = timeout(HEADER, host.write_all(CONNECTED)).await.map_err(|_| RelayError::Late)?;
        answered.map_err(RelayError::Broken)?;
        relay(&program, &host).await.map_err(RelayError::Broken)?;
        program.reset_on_close(false).map_err(RelayError::Broken)
    }

    /// The connection of a program that the header names, and its place among others where it has one.
    async fn program(&self, header: &Header) -> Result<(Endpoint, Option<OwnedSemaphorePermit>), RelayError> {
        match header {
            Header::Loopback(wanted) => {
                let network = |reply| Command::Network { reply };
                let namespace = self.sandbox.send(&wanted.container, network).await?;
                Ok((connect(namespace, wanted).await?, None))
            }
            Header::Socket(number) => {
                let accepted = self.sockets.take(*number).ok_or(RelayError::NotWaiting(*number))?;
                let program = Endpoint::new(accepted.stream).map_err(RelayError::Take)?;
                Ok((program, Some(accepted.place)))
            }
        }
    }
}

/// A connection to a port in a network namespace, by either loopback address; closing it is a reset.
pub async fn connect(
    namespace: impl AsFd + Send + Sync + 'static,
    wanted: &LoopbackPort,
) -> Result<Endpoint, RelayError> {
    let families = [wanted.family, wanted.family.other()];
    // A socket stays of the namespace in which it was made.
    let made = move || visit_network(namespace, || families.map(socket));
    let sockets = spawn_blocking(made).await.map_err(|error| RelayError::Socket(error.into()))?;
    let mut failed = None;
    for (family, socket) in families.into_iter().zip(sockets.map_err(RelayError::Socket)?) {
        let connected = async { finish(socket?, family, wanted.port).await };
        match connected.await {
            Ok(program) => return Ok(program),
            // That of the address which was asked for.
            Err(error) => failed = failed.or(Some(error)),
        }
    }
    let source = failed.unwrap_or_else(|| io::ErrorKind::ConnectionRefused.into());
    Err(RelayError::Connect { port: wanted.port.get(), source })
}

fn socket(family: Family) -> io::Result<TcpStream> {
    let family = match family {
        Family::V4 => AddressFamily::INET,
        Family::V6 => AddressFamily::INET6,
    };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    Ok(socket_with(family, SocketType::STREAM, flags, None)?.into())
}

async fn finish(socket: TcpStream, family: Family, port: NonZeroU16) -> io::Result<Endpoint> {
    let stream = TcpSocket::from_std_stream(socket).connect(family.address(port)).await?.into_std()?;
    set_tcp_nodelay(&stream, true)?;
    let endpoint = Endpoint::new(stream.into())?;
    endpoint.reset_on_close(true)?;
    Ok(endpoint)
}

#[cfg(test)]
mod tests;
