//! `crictl port-forward`: ports of this machine's loopback addresses, each connection carried to a port of a pod.
//!
//! ```text
//!  client ─TCP─▶ 127.0.0.1:LOCAL, [::1]:LOCAL ─▶ streams "error" and "data" of one request ─▶ 127.0.0.1:PORT in the pod
//! ```

use std::{
    io::{self, Read as _, Write as _},
    net::{Shutdown, TcpListener, TcpStream},
    str::FromStr,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    thread,
};

use super::spdy::{Connection, SpdyError};

const PROTOCOL: &str = "portforward.k8s.io";

#[derive(Debug, thiserror::Error)]
pub enum ForwardError {
    #[error(transparent)]
    Spdy(#[from] SpdyError),
    #[error("listen on {address}")]
    Listen { address: String, source: io::Error },
    #[error("accept a connection")]
    Accept(#[source] io::Error),
}

/// `[LOCAL:]REMOTE`. A local port of 0 is any that is free.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ports {
    local: u16,
    remote: u16,
}

impl FromStr for Ports {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (local, remote) = text.split_once(':').unwrap_or((text, text));
        let local = if local.is_empty() { 0 } else { local.parse()? };
        Ok(Self { local, remote: remote.parse()? })
    }
}

/// Carries connections until the process is killed.
///
/// # Errors
/// The server refuses, or the port is taken.
pub fn forward(url: &str, ports: Ports) -> Result<(), ForwardError> {
    let connection = Arc::new(Connection::open(url, PROTOCOL)?);
    let listen = |address: String| match TcpListener::bind(&address) {
        Ok(listener) => Ok(listener),
        Err(source) => Err(ForwardError::Listen { address, source }),
    };
    let four = listen(format!("127.0.0.1:{}", ports.local))?;
    let local = four.local_addr().map_err(ForwardError::Accept)?.port();
    println!("Forwarding from 127.0.0.1:{local} -> {}", ports.remote);
    // A machine may be without IPv6.
    if let Ok(six) = listen(format!("[::1]:{local}")) {
        println!("Forwarding from [::1]:{local} -> {}", ports.remote);
        let connection = connection.clone();
        thread::spawn(move || serve(&six, &connection, ports.remote));
    }
    serve(&four, &connection, ports.remote)
}

fn serve(listener: &TcpListener, connection: &Arc<Connection>, port: u16) -> Result<(), ForwardError> {
    loop {
        let (client, _) = listener.accept().map_err(ForwardError::Accept)?;
        println!("Handling connection for {port}");
        let connection = connection.clone();
        thread::spawn(move || {
            if let Err(error) = carry(&client, &connection, port) {
                eprintln!("an error occurred forwarding to port {port}: {error}");
            }
        });
    }
}

/// Carries one connection to its end, which is the server's to make.
fn carry(client: &TcpStream, connection: &Connection, port: u16) -> io::Result<()> {
    static REQUEST: AtomicU32 = AtomicU32::new(0);
    let request = REQUEST.fetch_add(1, Ordering::Relaxed).to_string();
    let port = port.to_string();
    let stream = |kind| {
        let headers = [("streamtype", kind), ("port", &*port), ("requestid", &*request)];
        connection.stream(&headers).map_err(io::Error::other)
    };
    let (nothing, mut error) = stream("error")?;
    nothing.end()?;
    let (mut outgoing, mut incoming) = stream("data")?;
    thread::scope(|scope| {
        scope.spawn(move || {
            let mut client = client;
            // The client may go first.
            let _ = io::copy(&mut client, &mut outgoing);
            outgoing.end()
        });
        let mut to = client;
        let copied = io::copy(&mut incoming, &mut to).and_then(|_| to.flush());
        let _ = client.shutdown(Shutdown::Both);
        copied
    })?;
    let mut why = String::new();
    error.read_to_string(&mut why)?;
    if why.is_empty() { Ok(()) } else { Err(io::Error::other(why)) }
}

#[cfg(test)]
mod tests;
