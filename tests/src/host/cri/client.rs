//! Unary gRPC calls on a unix socket, by curl, which speaks HTTP/2 and shows the trailers: a client library would be 60 crates.
//!
//!   POST /SERVICE/METHOD   0, length (4 bytes, big-endian), message   ─▶
//!   ◀─ the same, or nothing   trailers: grpc-status, grpc-message

use std::{
    fs,
    path::PathBuf,
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
};

use protobuf::Message;

use super::super::{engine::ENGINE_DEADLINE, finish};

/// Bytes before a message: whether it is compressed, and its length.
const PREFIX: usize = 5;

/// Why a call has failed, in the server's words.
#[derive(Debug)]
pub struct Refusal {
    /// As gRPC numbers them.
    pub code: u32,
    pub message: String,
}

/// A server of the Container Runtime Interface.
#[derive(Debug)]
pub struct Client {
    socket: PathBuf,
    /// For files of a call.
    dir: PathBuf,
}

impl Client {
    pub fn new(socket: PathBuf, dir: PathBuf) -> Self {
        Self { socket, dir }
    }

    /// Calls `METHOD` of `runtime.v1.SERVICE`.
    ///
    /// # Errors
    /// The server's. Panics when there is no answer.
    pub fn call<A: Message>(
        &self,
        service: &str,
        method: &str,
        request: &impl Message,
    ) -> Result<A, Refusal> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let headers = self.dir.join(format!("headers{}x{count}", std::process::id()));
        let mut curl = Command::new("curl");
        curl.args(["--silent", "--show-error", "--http2-prior-knowledge", "--data-binary", "@-"]);
        curl.args(["--header", "content-type: application/grpc", "--header", "te: trailers"]);
        curl.arg("--unix-socket").arg(&self.socket).arg("--dump-header").arg(&headers);
        curl.arg(format!("http://localhost/runtime.v1.{service}/{method}"));
        let finished = finish(&mut curl, &framed(request), ENGINE_DEADLINE);
        let told = fs::read_to_string(&headers).unwrap_or_default();
        let _ = fs::remove_file(&headers);
        let Some(code) = header(&told, "grpc-status").and_then(|code| code.parse().ok()) else {
            panic!("{method}: no status of gRPC: {told:?} {finished:?}");
        };
        if code != 0 {
            let message = header(&told, "grpc-message").map(decoded).unwrap_or_default();
            return Err(Refusal { code, message });
        }
        let message = finished.stdout.get(PREFIX..).unwrap_or_default();
        Ok(A::parse_from_bytes(message).unwrap_or_else(|error| panic!("{method}: {error}")))
    }
}

fn framed(request: &impl Message) -> Vec<u8> {
    let message = request.write_to_bytes().expect("a message");
    let length = u32::try_from(message.len()).expect("a small message");
    [&[0][..], &length.to_be_bytes(), &message].concat()
}

fn header<'a>(told: &'a str, name: &str) -> Option<&'a str> {
    told.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
}

/// Undoes gRPC's percent-encoding.
fn decoded(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        let hex = tail.get(..2).and_then(|hex| u8::from_str_radix(str::from_utf8(hex).ok()?, 16).ok());
        match (first, hex) {
            (b'%', Some(byte)) => {
                bytes.push(byte);
                rest = &tail[2..];
            }
            _ => {
                bytes.push(first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
