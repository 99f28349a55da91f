//! The loopback addresses of a network namespace, taken for a guest: a TCP connection that is made there to 127.0.0.1 or ::1, to
//! whichever port, comes to a listener of ours. The port of the accepted socket is the one that was meant.
//!
//!   connect 127.0.0.1:8080 ─▶ the kernel looks for a listener ─▶ `program` ─▶ the socket of that family, out of a map
//!
//! The kernel asks the program before it looks into its own table (BPF_PROG_TYPE_SK_LOOKUP), and only of packets of this
//! namespace. Nothing is configured in there: no rule, no address, and `lo` stays as it is. All of it ends with our descriptors,
//! whatever ends us. The listeners are bound to the loopback addresses, and the program looks at the destination as well, so
//! that no packet of another interface leads here.

mod program;
mod redirect;

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener},
    os::fd::{AsFd as _, OwnedFd},
};

use bulkhead_sys::{
    bpf::{self, Kind, Sockets},
    namespace::visit_network,
};
use rustix::net::{
    AddressFamily, SocketAddrV4, SocketAddrV6, SocketFlags, SocketType, bind, listen, socket_with, sockopt,
};

use super::{Namespace, NetworkError};

/// Connections that nobody has accepted yet.
const BACKLOG: i32 = 128;

/// Takes connections for as long as it lives.
#[derive(Debug)]
pub struct Loopback {
    /// For each family that the namespace has; they do not block.
    pub listeners: Vec<TcpListener>,
    /// Of the program or the table, which is gone when this is closed.
    pub link: OwnedFd,
    /// How an accepted connection tells what was meant.
    pub meant: Meant,
}

/// Where the kernel keeps the address that a client has connected to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Meant {
    /// It is the socket's own.
    Own,
    /// The socket's own is that of the listener.
    Original,
}

impl Meant {
    /// The address that was meant by who made the connection.
    ///
    /// # Errors
    /// When the kernel does not know it.
    pub fn of(self, client: impl std::os::fd::AsFd, own: SocketAddr) -> io::Result<SocketAddr> {
        match self {
            Self::Own => Ok(own),
            Self::Original => redirect::original(client, own),
        }
    }
}

impl Loopback {
    /// Listens in a namespace. A program that somebody else has attached there is asked first.
    ///
    /// # Errors
    /// The step that failed: where the kernel has no such programs or does not let us have one. Nothing is left then.
    pub fn take(namespace: &Namespace) -> Result<Self, NetworkError> {
        let failed = |step| move |source| NetworkError::Loopback { step, source };
        let (sockets, program) = match load() {
            Err(NetworkError::Loopback { source, .. })
                if source.kind() == io::ErrorKind::PermissionDenied =>
            {
                return Self::redirected(namespace);
            }
            loaded => loaded?,
        };
        let made = visit_network(namespace, || [four(), six()]).map_err(failed("enter the namespace"))?;
        let [four, six] = made;
        let four = four.map_err(failed("listen on 127.0.0.1"))?;
        sockets.set(program::FOUR, four.as_fd()).map_err(failed("let BPF choose a listener"))?;
        let mut listeners = vec![four];
        // A host without IPv6 has no such socket, and no connection to it.
        if let Ok(six) = six {
            sockets.set(program::SIX, six.as_fd()).map_err(failed("let BPF choose a listener"))?;
            listeners.push(six);
        }
        let link = bpf::link(namespace.as_fd(), Kind::SocketLookup, program.as_fd())
            .map_err(failed("attach a BPF program to the namespace"))?;
        Ok(Self { listeners, link, meant: Meant::Own })
    }

    /// As `take`, for who may have no BPF.
    fn redirected(namespace: &Namespace) -> Result<Self, NetworkError> {
        let failed = |step| move |source| NetworkError::Loopback { step, source };
        let made = visit_network(namespace, || -> Result<Self, NetworkError> {
            let four = four().map_err(failed("listen on 127.0.0.1"))?;
            let six = six().ok();
            let link =
                redirect::take(&four, six.as_ref()).map_err(failed("redirect connections by nftables"))?;
            Ok(Self { listeners: [four].into_iter().chain(six).collect(), link, meant: Meant::Original })
        });
        made.map_err(failed("enter the namespace"))?
    }

    /// Whether this host's kernel would let this process do that. Nothing is attached.
    ///
    /// # Errors
    /// Why not.
    pub fn check() -> Result<(), NetworkError> {
        load().map(drop)
    }
}

fn load() -> Result<(Sockets, OwnedFd), NetworkError> {
    let failed = |step| move |source| NetworkError::Loopback { step, source };
    let sockets = Sockets::new(program::SOCKETS).map_err(failed("make a BPF map of sockets"))?;
    let code = program::choose(sockets.as_fd());
    let program =
        bpf::load(Kind::SocketLookup, &code).map_err(failed("load a BPF program that chooses sockets"))?;
    Ok((sockets, program))
}

fn four() -> io::Result<TcpListener> {
    let socket = socket(AddressFamily::INET)?;
    // While `lo` is down nothing has its address.
    sockopt::set_ip_freebind(&socket, true)?;
    bind(&socket, &SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0))?;
    listen(&socket, BACKLOG)?;
    Ok(socket.into())
}

fn six() -> io::Result<TcpListener> {
    let socket = socket(AddressFamily::INET6)?;
    sockopt::set_ipv6_v6only(&socket, true)?;
    sockopt::set_ipv6_freebind(&socket, true)?;
    bind(&socket, &SocketAddrV6::new(Ipv6Addr::LOCALHOST, 0, 0, 0))?;
    listen(&socket, BACKLOG)?;
    Ok(socket.into())
}

fn socket(family: AddressFamily) -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    Ok(socket_with(family, SocketType::STREAM, flags, None)?)
}

#[cfg(test)]
mod tests;
