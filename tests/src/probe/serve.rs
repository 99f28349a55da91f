//! A server that shows whether a connection was carried whole, `probe serve ADDRESS…`, and its client, `exchange`. Both speak TCP
//! and unix sockets.
//!
//!   what comes goes back as it comes; behind it, once the client has ended its direction, `END`
//!   a connection whose first bytes are `RESET` is reset

use std::{
    io::{self, Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    os::{fd::AsFd, unix::net::UnixStream},
    thread,
    time::Duration,
};

const END: &[u8] = b"end";
pub const RESET: &[u8] = b"reset";

/// A stream that is read and written by reference, and whose directions end one by one.
pub trait Stream: AsFd + Sync {
    /// # Errors
    /// Those of shutdown(2).
    fn half_close(&self) -> io::Result<()>;
}

impl Stream for TcpStream {
    fn half_close(&self) -> io::Result<()> {
        self.shutdown(Shutdown::Write)
    }
}

impl Stream for UnixStream {
    fn half_close(&self) -> io::Result<()> {
        self.shutdown(Shutdown::Write)
    }
}

/// Listens on all addresses, says so, and never ends. Says how a connection failed.
///
/// # Errors
/// When one of them cannot be had.
pub fn serve(addresses: &[&str], say: fn(&str)) -> io::Result<()> {
    let listeners: Vec<_> = addresses.iter().map(TcpListener::bind).collect::<Result<_, _>>()?;
    say("serving");
    thread::scope(|scope| {
        for listener in listeners {
            scope.spawn(move || {
                for client in listener.incoming().flatten() {
                    thread::spawn(move || {
                        if let Err(error) = answer(&client) {
                            say(&format!("{:?}", error.kind()));
                        }
                    });
                }
            });
        }
    });
    Ok(())
}

/// One connection, as the server has it.
///
/// # Errors
/// Those of the connection.
pub fn answer<S: Stream>(client: &S) -> io::Result<()>
where
    for<'a> &'a S: Read + Write,
{
    let mut client_end = client;
    let mut buffer = [0; 16 << 10];
    loop {
        let count = client_end.read(&mut buffer)?;
        if buffer[..count] == *RESET {
            return Ok(rustix::net::sockopt::set_socket_linger(client, Some(Duration::ZERO))?);
        }
        if count == 0 {
            return client_end.write_all(END);
        }
        client_end.write_all(&buffer[..count])?;
    }
}

/// Sends `bytes` and the end while it reads; whether all of them came back, and the end behind them.
///
/// # Errors
/// Those of the connection.
pub fn exchange<S: Stream>(client: &S, bytes: &[u8]) -> io::Result<bool>
where
    for<'a> &'a S: Read + Write,
{
    thread::scope(|scope| {
        let sending = scope.spawn(|| {
            let mut client = client;
            client.write_all(bytes)?;
            client.half_close()
        });
        let mut received = Vec::new();
        let mut client = client;
        client.read_to_end(&mut received)?;
        sending.join().unwrap_or_else(|_| Err(io::Error::other("the sender panicked")))?;
        Ok(received.strip_suffix(END) == Some(bytes))
    })
}
