//! An agent that its guest has taken over against the server: its first line, and the frame that answers a call.
//!
//! Whatever it says, the call ends when the stream does, and error texts are bounded.

#![no_main]

use arbitrary::Arbitrary;
use bulkhead_protocol::greeting::Greeting;
use bulkhead_runtime::api::fuzzing::{Call, agent};
use libfuzzer_sys::fuzz_target;

#[derive(Debug, Arbitrary)]
struct Input {
    /// Instead of a greeting.
    first: Option<Vec<u8>>,
    kernel: String,
    call: u8,
    answer: Answer,
}

#[derive(Debug, Arbitrary)]
enum Answer {
    Bytes(Vec<u8>),
    /// A ttrpc frame: length, stream, type and flags, then a `Response`.
    Frame {
        length: Option<u32>,
        stream: u8,
        kind: u8,
        flags: u8,
        payload: Vec<u8>,
    },
    /// A frame as an agent makes it.
    Response {
        code: u8,
        message: String,
        times: u16,
        payload: Vec<u8>,
    },
}

const CALLS: [Call; 7] =
    [Call::Start, Call::Wait, Call::Processes, Call::Stats, Call::Time, Call::Oom, Call::Watches];
/// The type of an answer, and the number of a client's first stream.
const RESPONSE: u8 = 2;
const FIRST_STREAM: u8 = 1;
/// What fits into a socket's buffer.
const MAX: usize = 64 << 10;

fn frame(length: Option<u32>, stream: u8, kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
    let payload = &payload[..payload.len().min(MAX)];
    let mut frame = length.unwrap_or(payload.len() as u32).to_be_bytes().to_vec();
    frame.extend(u32::from(stream).to_be_bytes());
    frame.extend([kind, flags]);
    frame.extend(payload);
    frame
}

/// A field of protobuf's wire type 2: bytes.
fn field(number: u8, bytes: &[u8], message: &mut Vec<u8>) {
    message.push(number << 3 | 2);
    let mut length = bytes.len();
    while length > 0x7f {
        message.push(length as u8 | 0x80);
        length >>= 7;
    }
    message.push(length as u8);
    message.extend(bytes);
}

/// `Response { Status status = 1; bytes payload = 2 }`, `Status { int32 code = 1; string message = 2 }`
fn response(code: u8, message: &str, payload: &[u8]) -> Vec<u8> {
    let mut response = Vec::new();
    if code % 4 != 0 {
        let mut status = vec![1 << 3, code % 20];
        field(2, message.as_bytes(), &mut status);
        field(1, &status, &mut response);
    }
    field(2, payload, &mut response);
    response
}

fuzz_target!(|input: Input| {
    let first = match input.first {
        Some(first) => first[..first.len().min(4096)].to_vec(),
        None => Greeting::new(&input.kernel).to_string().into_bytes(),
    };
    let answer = match input.answer {
        Answer::Bytes(bytes) => bytes,
        Answer::Frame { length, stream, kind, flags, payload } => {
            frame(length, stream % 4, kind % 8, flags, &payload)
        }
        Answer::Response { code, message, times, payload } => {
            let message = message.repeat(usize::from(times % 1024));
            let message = &message[..message.floor_char_boundary(MAX / 2)];
            frame(None, FIRST_STREAM, RESPONSE, 0, &response(code, message, &payload))
        }
    };
    agent(&first, CALLS[usize::from(input.call) % CALLS.len()], &answer);
});
