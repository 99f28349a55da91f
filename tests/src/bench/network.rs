//! TCP between a container and the other end of its veth pair: a stream out, a stream in, and one byte there and back.
//!
//! Only the host's end has a clock: a guest's runs at a pace of its own in emulation.

use std::{
    io::{self, Read, Write},
    net::{TcpListener, TcpStream},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use crate::host::Wire;

/// The other end of a `Wire::connected`.
const OUTSIDE: &str = "10.77.0.1";
/// Bytes of one stream.
pub const STREAM: usize = 64 << 20;
/// Round trips of one measurement.
const TRIPS: u32 = 500;
/// For the peer to come, and for each read and write.
const PATIENCE: Duration = Duration::from_secs(120);

/// Seconds.
#[derive(Debug, Clone, Copy)]
pub struct Measured {
    /// `STREAM` bytes out of the container, and into it.
    pub out: f64,
    pub into: f64,
    /// One byte there and back.
    pub trip: f64,
}

/// `probe` makes the command that runs the probe with the given words on the inside of `wire`.
pub fn measure(wire: &Wire, mut probe: impl FnMut(&[&str]) -> Command) -> io::Result<Measured> {
    let listener = wire.outside(|| TcpListener::bind((OUTSIDE, 0)))?;
    let port = listener.local_addr()?.port().to_string();
    let length = STREAM.to_string();
    let mut with = |words: &[&str], talk: fn(TcpStream) -> io::Result<f64>| {
        let mut child = probe(words).stdin(Stdio::null()).stdout(Stdio::null()).spawn()?;
        let peer = accept(&listener)?;
        peer.set_nodelay(true)?;
        peer.set_read_timeout(Some(PATIENCE))?;
        peer.set_write_timeout(Some(PATIENCE))?;
        let measured = talk(peer);
        child.wait()?;
        measured
    };
    let out = with(&["pour", OUTSIDE, &port, &length], receive)?;
    let into = with(&["drain", OUTSIDE, &port], send)?;
    let trip = with(&["mirror", OUTSIDE, &port], trips)?;
    Ok(Measured { out, into, trip })
}

fn accept(listener: &TcpListener) -> io::Result<TcpStream> {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let patience = Timespec { tv_sec: PATIENCE.as_secs().cast_signed(), tv_nsec: 0 };
    match poll(&mut [PollFd::new(listener, PollFlags::IN)], Some(&patience))? {
        0 => Err(io::ErrorKind::TimedOut.into()),
        _ => Ok(listener.accept()?.0),
    }
}

/// From the first byte to the end.
fn receive(mut peer: TcpStream) -> io::Result<f64> {
    let mut buffer = vec![0; 256 << 10];
    let mut total = peer.read(&mut buffer)?;
    let started = Instant::now();
    loop {
        match peer.read(&mut buffer)? {
            0 => break,
            count => total += count,
        }
    }
    let took = started.elapsed();
    if total == STREAM { Ok(took.as_secs_f64()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

/// To the peer's end of file, which comes when it has read everything.
fn send(mut peer: TcpStream) -> io::Result<f64> {
    let buffer = vec![0; 256 << 10];
    let started = Instant::now();
    for _ in 0..STREAM / buffer.len() {
        peer.write_all(&buffer)?;
    }
    peer.shutdown(std::net::Shutdown::Write)?;
    peer.read_to_end(&mut Vec::new())?;
    Ok(started.elapsed().as_secs_f64())
}

fn trips(mut peer: TcpStream) -> io::Result<f64> {
    let mut byte = [1];
    // The first one is still part of setting up.
    let mut started = Instant::now();
    for trip in 0..=TRIPS {
        if trip == 1 {
            started = Instant::now();
        }
        peer.write_all(&byte)?;
        peer.read_exact(&mut byte)?;
    }
    Ok(started.elapsed().as_secs_f64() / f64::from(TRIPS))
}
