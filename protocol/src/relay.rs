//! Connections beside the pod's network: one vsock stream each, opened by the server, connected on by the agent.
//!
//!   server ──`CONNECT 1026\n`──▶ VMM ──`OK <port>\n`──▶ server ──header line──▶ agent ──`ok\n`──▶ server
//!
//!   `loopback <container> <v4|v6> <port>\n`   a port of the guest; `ok` once the program there has taken the connection
//!   `socket <number>\n`                       a connection that a program of the guest has made to a unix socket of the host,
//!                                             by its number (`WaitConnections`)
//!
//! After `ok` the bytes are those of the connection, and each direction ends by a half-close. A stream that is closed without
//! one is a connection that was reset, or never was.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    num::NonZeroU16,
    str::FromStr,
};

use crate::id::ContainerId;

/// The agent's answer once the stream is connected; else it closes the stream.
pub const CONNECTED: &[u8] = b"ok\n";

/// The line that opens a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Header {
    Loopback(LoopbackPort),
    /// The number of a connection that waits in the guest.
    Socket(u64),
}

/// A port of the loopback interface in a container's network namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoopbackPort {
    pub container: ContainerId,
    pub family: Family,
    pub port: NonZeroU16,
}

/// Which of the two loopback addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    V4,
    V6,
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a relay header")]
pub struct HeaderError;

impl Family {
    pub fn other(self) -> Self {
        match self {
            Self::V4 => Self::V6,
            Self::V6 => Self::V4,
        }
    }

    /// A port of this loopback address.
    pub fn address(self, port: NonZeroU16) -> SocketAddr {
        let address: IpAddr = match self {
            Self::V4 => Ipv4Addr::LOCALHOST.into(),
            Self::V6 => Ipv6Addr::LOCALHOST.into(),
        };
        SocketAddr::new(address, port.get())
    }
}

impl fmt::Display for Header {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Loopback(LoopbackPort { container, family, port }) => {
                writeln!(f, "loopback {container} {family} {port}")
            }
            Self::Socket(number) => writeln!(f, "socket {number}"),
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V4 => "v4",
            Self::V6 => "v6",
        })
    }
}

impl FromStr for Header {
    type Err = HeaderError;

    fn from_str(line: &str) -> Result<Self, HeaderError> {
        let line = line.strip_suffix('\n').unwrap_or(line);
        match *line.split(' ').collect::<Vec<_>>() {
            ["loopback", container, family, port] => Ok(Self::Loopback(LoopbackPort {
                container: container.parse().map_err(|_| HeaderError)?,
                family: match family {
                    "v4" => Family::V4,
                    "v6" => Family::V6,
                    _ => return Err(HeaderError),
                },
                port: number(port)?,
            })),
            ["socket", connection] => Ok(Self::Socket(number(connection)?)),
            _ => Err(HeaderError),
        }
    }
}

/// The number parser would take a sign.
fn number<T: FromStr>(text: &str) -> Result<T, HeaderError> {
    if text.bytes().all(|byte| byte.is_ascii_digit()) {
        text.parse().map_err(|_| HeaderError)
    } else {
        Err(HeaderError)
    }
}

#[cfg(test)]
mod tests;
