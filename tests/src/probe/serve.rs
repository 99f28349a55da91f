//! `probe serve ADDRESS…`: a server that shows whether a connection was carried whole, and `exchange`, its client.
//!
//!   what comes goes back as it comes; behind it, once the client has ended its direction, `END`
//!   a connection whose first bytes are `RESET` is reset

use std::{
    io::{self, Read as _, Write as _},
    net::{Shutdown, TcpListener, TcpStream},
    thread,
    time::Duration,
};

const END: &[u8] = b"end";
pub const RESET: &[u8] = b"reset";

/// Listens on all addresses, says so, and never ends.
///
/// # Errors
/// When one of them cannot be had.
pub fn serve(addresses: &[&str], say: impl FnOnce(&str)) -> io::Result<()> {
    let listeners: Vec<_> = addresses.iter().map(TcpListener::bind).collect::<Result<_, _>>()?;
    say("serving");
    thread::scope(|scope| {
        for listener in listeners {
            scope.spawn(move || {
                for client in listener.incoming().flatten() {
                    // What fails here is the client's.
                    thread::spawn(move || answer(client));
                }
            });
        }
    });
    Ok(())
}

fn answer(mut client: TcpStream) -> io::Result<()> {
    let mut buffer = [0; 16 << 10];
    loop {
        let count = client.read(&mut buffer)?;
        if buffer[..count] == *RESET {
            let linger = Some(Duration::ZERO);
            return Ok(rustix::net::sockopt::set_socket_linger(&client, linger)?);
        }
        if count == 0 {
            return client.write_all(END);
        }
        client.write_all(&buffer[..count])?;
    }
}

/// Sends `bytes` and the end while it reads; whether all of them came back, and the end behind them.
///
/// # Errors
/// Those of the connection.
pub fn exchange(client: &TcpStream, bytes: &[u8]) -> io::Result<bool> {
    thread::scope(|scope| {
        let sending = scope.spawn(|| {
            (&*client).write_all(bytes)?;
            client.shutdown(Shutdown::Write)
        });
        let mut received = Vec::new();
        (&*client).read_to_end(&mut received)?;
        sending.join().unwrap_or_else(|_| Err(io::Error::other("the sender panicked")))?;
        Ok(received.strip_suffix(END) == Some(bytes))
    })
}
