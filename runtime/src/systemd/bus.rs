//! D-Bus with systemd itself, over the socket that systemctl uses: there need not be a message bus.
//!
//!   AUTH EXTERNAL ─▶ OK ─▶ BEGIN ─▶ method call ─▶ … signals … ─▶ its reply
//!
//! zbus encodes and decodes the messages, and makes no connection: systemd gives its well-known name as the sender, which
//! zbus's connection takes for a broken message. There is one exchange at a time, and one deadline for all of them.

use std::{
    collections::VecDeque,
    io::{self, Read as _, Write as _},
    os::unix::net::UnixStream,
    path::Path,
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};
use zbus::{
    DynamicType, Message, OwnedVariant, Type, Variant,
    wire::{
        Endian,
        serialized::{Context, Data},
    },
};

/// Bytes of a message and of a line; systemd's are far shorter.
const MESSAGE: usize = 1 << 20;
const LINE: usize = 512;
/// Signals that may wait: jobs of others that end while ours runs.
const SIGNALS: usize = 4096;

/// D-Bus specification, "Message Format": types, header fields, and the part of the header whose length is fixed.
const METHOD_RETURN: u8 = 2;
const ERROR: u8 = 3;
const SIGNAL: u8 = 4;
const FIELD_MEMBER: u8 = 3;
const FIELD_ERROR_NAME: u8 = 4;
const FIELD_REPLY_SERIAL: u8 = 5;
const FIXED: usize = 16;

#[derive(Debug, thiserror::Error)]
pub enum BusError {
    #[error("use the socket of systemd")]
    Socket { source: io::Error },
    #[error("systemd refused this user and answered {answer:?}")]
    Refused { answer: String },
    #[error("read a D-Bus message: {what}")]
    Message { what: &'static str },
    #[error("encode or decode a D-Bus message")]
    Wire { source: Box<zbus::Error> },
    /// By the error's name.
    #[error("{name}: {text}")]
    Answer { name: String, text: String },
    #[error("systemd did not answer within {0:?}")]
    Late(Duration),
}

/// What came: a whole message, as far as it matters here.
struct Incoming {
    kind: u8,
    member: String,
    error: String,
    reply_serial: u32,
    body: Data<'static, 'static>,
}

pub(super) struct Bus {
    stream: UnixStream,
    patience: Duration,
    deadline: Instant,
    signals: VecDeque<Incoming>,
}

impl Bus {
    pub(super) fn connect(path: &Path, patience: Duration) -> Result<Self, BusError> {
        let stream = UnixStream::connect(path).map_err(|source| BusError::Socket { source })?;
        let mut bus =
            Self { stream, patience, deadline: Instant::now() + patience, signals: VecDeque::new() };
        // As systemd sees the peer.
        let user = bulkhead_sys::user_namespace::uid_outside().to_string();
        let hex: String = user.bytes().map(|digit| format!("{digit:02x}")).collect();
        bus.write(format!("\0AUTH EXTERNAL {hex}\r\n").as_bytes())?;
        let answer = bus.line()?;
        if !answer.starts_with("OK ") {
            return Err(BusError::Refused { answer });
        }
        bus.write(b"BEGIN\r\n")?;
        Ok(bus)
    }

    /// Calls a method, and waits for its reply: the reply's body.
    pub(super) fn call<B: Serialize + DynamicType>(
        &mut self,
        (object, interface, method): (&str, &str, &str),
        body: &B,
    ) -> Result<Data<'static, 'static>, BusError> {
        let call = Message::method_call(object, method).interface(interface).build(body).map_err(wire)?;
        let serial = call.primary_header().serial_num().get();
        self.write(call.data().bytes())?;
        loop {
            let message = self.receive()?;
            match message.kind {
                METHOD_RETURN if message.reply_serial == serial => return Ok(message.body),
                ERROR if message.reply_serial == serial => {
                    let text = read::<String>(&message.body).unwrap_or_default();
                    return Err(BusError::Answer { name: message.error, text });
                }
                SIGNAL if self.signals.len() < SIGNALS => self.signals.push_back(message),
                _ => {}
            }
        }
    }

    /// The body of the next signal of this name.
    pub(super) fn signal(&mut self, member: &str) -> Result<Data<'static, 'static>, BusError> {
        loop {
            let message = match self.signals.pop_front() {
                Some(message) => message,
                None => self.receive()?,
            };
            if message.kind == SIGNAL && message.member == member {
                return Ok(message.body);
            }
        }
    }

    fn receive(&mut self) -> Result<Incoming, BusError> {
        let mut bytes = vec![0; FIXED];
        self.read(&mut bytes)?;
        let endian = match bytes.first() {
            Some(b'l') => Endian::Little,
            Some(b'B') => Endian::Big,
            _ => return Err(BusError::Message { what: "the byte order is unknown" }),
        };
        let number = |at: usize| -> usize {
            let word = bytes.get(at..at + 4).and_then(|word| word.try_into().ok()).unwrap_or_default();
            let number =
                if endian == Endian::Little { u32::from_le_bytes(word) } else { u32::from_be_bytes(word) };
            number as usize
        };
        let (body, fields) = (number(4), number(12));
        // The body begins at a multiple of 8.
        let head = FIXED.saturating_add(fields).next_multiple_of(8);
        let whole = head.saturating_add(body);
        if whole > MESSAGE {
            return Err(BusError::Message { what: "the message is too long" });
        }
        bytes.resize(whole, 0);
        let rest = bytes.get_mut(FIXED..).unwrap_or_default();
        self.read(rest)?;
        let body = bytes.split_off(head);
        parse(bytes, body, endian)
    }

    fn line(&mut self) -> Result<String, BusError> {
        let mut line = Vec::new();
        while !line.ends_with(b"\r\n") {
            if line.len() == LINE {
                return Err(BusError::Message { what: "a line of the handshake has no end" });
            }
            let mut byte = [0];
            self.read(&mut byte)?;
            line.extend(byte);
        }
        Ok(String::from_utf8_lossy(&line).trim_end().to_owned())
    }

    fn read(&mut self, bytes: &mut [u8]) -> Result<(), BusError> {
        self.stream.set_read_timeout(Some(self.left()?)).map_err(|source| BusError::Socket { source })?;
        self.stream.read_exact(bytes).map_err(|source| self.failed(source))
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), BusError> {
        self.stream.set_write_timeout(Some(self.left()?)).map_err(|source| BusError::Socket { source })?;
        self.stream.write_all(bytes).map_err(|source| self.failed(source))
    }

    fn left(&self) -> Result<Duration, BusError> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        if left.is_zero() { Err(BusError::Late(self.patience)) } else { Ok(left) }
    }

    fn failed(&self, source: io::Error) -> BusError {
        match source.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => BusError::Late(self.patience),
            _ => BusError::Socket { source },
        }
    }
}

fn parse(head: Vec<u8>, body: Vec<u8>, endian: Endian) -> Result<Incoming, BusError> {
    type Head = (u8, u8, u8, u8, u32, u32, Vec<(u8, OwnedVariant)>);
    let head: Head = read(&Data::new(head, Context::new(endian, 0)))?;
    let (kind, fields) = (head.1, head.6);
    let body = Data::new(body, Context::new(endian, 0));
    let mut message = Incoming { kind, member: String::new(), error: String::new(), reply_serial: 0, body };
    for (field, value) in &fields {
        match (*field, &**value) {
            (FIELD_MEMBER, Variant::Str(name)) => message.member = name.as_str().to_owned(),
            (FIELD_ERROR_NAME, Variant::Str(name)) => message.error = name.as_str().to_owned(),
            (FIELD_REPLY_SERIAL, Variant::U32(serial)) => message.reply_serial = *serial,
            _ => {}
        }
    }
    Ok(message)
}

/// Reads a body of this type.
pub(super) fn read<T: for<'d> Deserialize<'d> + Type>(body: &Data<'_, '_>) -> Result<T, BusError> {
    body.deserialize().map(|(value, _)| value).map_err(wire)
}

fn wire(source: impl Into<zbus::Error>) -> BusError {
    BusError::Wire { source: Box::new(source.into()) }
}

#[cfg(test)]
mod tests;
