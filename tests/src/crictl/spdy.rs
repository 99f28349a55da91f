//! SPDY/3.1 as a client: what kubectl, the kubelet and crictl speak with a runtime's streaming server. Its WebSocket protocols, up to
//! `v4.channel.k8s.io`, cannot end one stream and leave the others open, as the end of standard input must.
//!
//! ```text
//!  POST URL, Upgrade: SPDY/3.1                        ─▶   ◀─ 101
//!  SYN_STREAM id, headers                             ─▶   ◀─ SYN_REPLY id
//!  DATA id, bytes (FLAG_FIN: the last of this way)    ◀─▶
//!                                                          ◀─ RST_STREAM id, GOAWAY
//! ```
//!
//! A control frame is 0x8003, its type (2 bytes), flags (1), length (3) and a payload; a data frame is the stream's id (4), flags (1),
//! length (3) and bytes. Ids of a client are odd. The header blocks of one way are one zlib stream; ours has stored blocks alone, those
//! of the server are not read. Kubernetes' implementations have no flow control.

use std::{
    collections::BTreeMap,
    io::{self, BufRead as _, BufReader, Read, Write},
    net::{Shutdown, TcpStream},
    sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc},
    thread,
    time::Duration,
};

const SYN_STREAM: u16 = 1;
const SYN_REPLY: u16 = 2;
const RST_STREAM: u16 = 3;
const PING: u16 = 6;
const GOAWAY: u16 = 7;
const CONTROL: u32 = 0x8003_0000;
const FIN: u8 = 1;
/// Bytes of one data frame.
const CHUNK: usize = 32 << 10;
/// For the server to take up a stream.
const TAKEN: Duration = Duration::from_secs(60);

#[derive(Debug, thiserror::Error)]
pub enum SpdyError {
    #[error("{0:?} is no URL of a streaming server: http://HOST:PORT/PATH")]
    Url(String),
    #[error("connect to {address}")]
    Connect { address: String, source: io::Error },
    #[error("ask for streams")]
    Ask(#[source] io::Error),
    #[error("no streams: {0}")]
    Refused(String),
    #[error("open the stream {headers}")]
    Open { headers: String, source: io::Error },
}

/// What the reading thread knows of a stream. A sender is dropped when its event cannot come any more.
#[derive(Debug)]
struct Entry {
    reply: Option<mpsc::Sender<()>>,
    data: Option<mpsc::Sender<Vec<u8>>>,
}

type Streams = Arc<Mutex<BTreeMap<u32, Entry>>>;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Ends when it is dropped, with all its streams.
#[derive(Debug)]
pub struct Connection {
    writer: Arc<Mutex<TcpStream>>,
    streams: Streams,
    /// Of the next stream.
    id: Mutex<u32>,
}

impl Connection {
    /// Speaks one of Kubernetes' protocols by SPDY, such as `v4.channel.k8s.io`.
    ///
    /// # Errors
    /// The server is not there, or refuses.
    pub fn open(url: &str, protocol: &str) -> Result<Self, SpdyError> {
        let (address, path) = split(url).ok_or_else(|| SpdyError::Url(url.to_owned()))?;
        let connect = |source| SpdyError::Connect { address: address.to_owned(), source };
        let socket = TcpStream::connect(address).map_err(connect)?;
        socket.set_nodelay(true).map_err(SpdyError::Ask)?;
        let request = format!(
            "POST {path} HTTP/1.1\r\nHost: {address}\r\nContent-Length: 0\r\nConnection: Upgrade\r\n\
             Upgrade: SPDY/3.1\r\nX-Stream-Protocol-Version: {protocol}\r\n\r\n"
        );
        (&socket).write_all(request.as_bytes()).map_err(SpdyError::Ask)?;
        let mut reader = BufReader::new(socket.try_clone().map_err(SpdyError::Ask)?);
        let status = head(&mut reader).map_err(SpdyError::Ask)?;
        if status.split(' ').nth(1) != Some("101") {
            let mut why = String::new();
            let _ = reader.take(1 << 10).read_to_string(&mut why);
            return Err(SpdyError::Refused(format!("{status}: {}", why.trim())));
        }
        let (writer, streams) = (Arc::new(Mutex::new(socket)), Streams::default());
        let (echo, known) = (writer.clone(), streams.clone());
        thread::spawn(move || {
            // Whatever ends it, ends the streams.
            let _ = receive(&mut reader, &echo, &known);
            lock(&known).clear();
        });
        Ok(Self { writer, streams, id: Mutex::new(1) })
    }

    /// A stream with these headers, once the server has taken it up.
    ///
    /// # Errors
    /// The server refuses it, or has gone.
    pub fn stream(&self, headers: &[(&str, &str)]) -> Result<(Outgoing, Incoming), SpdyError> {
        let failed = |source| SpdyError::Open { headers: format!("{headers:?}"), source };
        let (reply, replied) = mpsc::channel();
        let (data, received) = mpsc::channel();
        let id = {
            // Ids come in order.
            let mut next = lock(&self.id);
            let id = *next;
            *next += 2;
            lock(&self.streams).insert(id, Entry { reply: Some(reply), data: Some(data) });
            lock(&self.writer).write_all(&opening(id, headers)).map_err(failed)?;
            id
        };
        replied.recv_timeout(TAKEN).map_err(|error| failed(io::Error::other(error)))?;
        let outgoing = Outgoing { writer: self.writer.clone(), id };
        Ok((outgoing, Incoming { received, rest: Vec::new(), at: 0 }))
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        let _ = lock(&self.writer).shutdown(Shutdown::Both);
    }
}

/// Our way of a stream.
#[derive(Debug)]
pub struct Outgoing {
    writer: Arc<Mutex<TcpStream>>,
    id: u32,
}

impl Outgoing {
    fn send(&self, flags: u8, bytes: &[u8]) -> io::Result<()> {
        lock(&self.writer).write_all(&[&framed(self.id, flags, bytes.len())[..], bytes].concat())
    }

    /// Says that nothing more will come.
    ///
    /// # Errors
    /// The server has gone.
    pub fn end(self) -> io::Result<()> {
        self.send(FIN, b"")
    }
}

impl Write for Outgoing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let some = bytes.get(..CHUNK).unwrap_or(bytes);
        self.send(0, some).map(|()| some.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The server's way of a stream, which ends with the stream, or with the connection.
#[derive(Debug)]
pub struct Incoming {
    received: mpsc::Receiver<Vec<u8>>,
    rest: Vec<u8>,
    at: usize,
}

impl Read for Incoming {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.at == self.rest.len() {
            let Ok(bytes) = self.received.recv() else { return Ok(0) };
            (self.rest, self.at) = (bytes, 0);
        }
        let count = (&self.rest[self.at..]).read(buffer)?;
        self.at += count;
        Ok(count)
    }
}

/// The address and the path.
fn split(url: &str) -> Option<(&str, &str)> {
    let rest = url.strip_prefix("http://")?;
    Some(rest.split_at(rest.find('/')?))
}

/// The first line of an answer's head, of which nothing is left to read.
fn head(reader: &mut BufReader<TcpStream>) -> io::Result<String> {
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        match line.trim_end() {
            "" => return Ok(lines.into_iter().next().unwrap_or_default()),
            line => lines.push(line.to_owned()),
        }
    }
}

/// The first eight bytes of a frame.
fn framed(word: u32, flags: u8, length: usize) -> [u8; 8] {
    let length = u32::try_from(length).expect("a small frame") | u32::from(flags) << 24;
    let mut frame = [0; 8];
    frame[..4].copy_from_slice(&word.to_be_bytes());
    frame[4..].copy_from_slice(&length.to_be_bytes());
    frame
}

/// A SYN_STREAM: id, associated stream, priority, slot, block.
fn opening(id: u32, headers: &[(&str, &str)]) -> Vec<u8> {
    let mut payload = [&id.to_be_bytes()[..], &[0; 6]].concat();
    if id == 1 {
        // The head of a zlib stream that uses no dictionary.
        payload.extend([0x78, 0x01]);
    }
    let block = block(headers);
    payload.extend(stored(&block));
    // An empty one, as Z_SYNC_FLUSH makes it, has the reader give out what came before.
    payload.extend(stored(b""));
    [&framed(CONTROL | u32::from(SYN_STREAM), 0, payload.len())[..], &payload].concat()
}

/// Names and values: their number, then each with its length.
fn block(headers: &[(&str, &str)]) -> Vec<u8> {
    let length = |length: usize| u32::try_from(length).expect("short headers").to_be_bytes();
    let mut block = length(headers.len()).to_vec();
    for text in headers.iter().flat_map(|(name, value)| [name, value]) {
        block.extend(length(text.len()));
        block.extend(text.as_bytes());
    }
    block
}

/// A block that is not compressed and not the last (RFC 1951, 3.2.4).
fn stored(bytes: &[u8]) -> Vec<u8> {
    let length = u16::try_from(bytes.len()).expect("short headers");
    [&[0][..], &length.to_le_bytes(), &(!length).to_le_bytes(), bytes].concat()
}

fn receive(
    reader: &mut impl Read,
    writer: &Mutex<TcpStream>,
    streams: &Mutex<BTreeMap<u32, Entry>>,
) -> io::Result<()> {
    loop {
        let (mut word, mut length) = ([0; 4], [0; 4]);
        reader.read_exact(&mut word)?;
        reader.read_exact(&mut length)?;
        let [flags, length @ ..] = length;
        let mut payload = vec![
            0;
            usize::try_from(u32::from_be_bytes([0, length[0], length[1], length[2]]))
                .expect("24 bits")
        ];
        reader.read_exact(&mut payload)?;
        let word = u32::from_be_bytes(word);
        let of = || payload.first_chunk().map_or(0, |id| u32::from_be_bytes(*id));
        let ends = flags & FIN != 0;
        if word & CONTROL != CONTROL {
            let mut streams = lock(streams);
            let Some(entry) = streams.get_mut(&word) else { continue };
            if let Some(data) = &entry.data {
                // Its reader may be gone.
                let _ = data.send(payload);
            }
            if ends {
                entry.data = None;
            }
            continue;
        }
        match u16::try_from(word & 0xffff).unwrap_or_default() {
            SYN_REPLY => {
                if let Some(entry) = lock(streams).get_mut(&of()) {
                    let _ = entry.reply.take().map(|reply| reply.send(()));
                    if ends {
                        entry.data = None;
                    }
                }
            }
            RST_STREAM => drop(lock(streams).remove(&of())),
            PING => lock(writer).write_all(&[&framed(word, 0, payload.len())[..], &payload].concat())?,
            GOAWAY => return Ok(()),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests;
