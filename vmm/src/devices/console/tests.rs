use std::{
    fs::File,
    io::{Read, Seek},
    os::fd::AsFd,
};

use bulkhead_protocol::limits::{CONSOLE_TAIL, PACKET};
use vm_memory::{Bytes, GuestAddress};

use super::*;
use crate::{
    devices::{
        interrupt::Interrupt,
        testing::{Buffer, Ring},
    },
    event_loop::EventLoop,
    memory::{HUGE_PAGE, Memory},
};

const AT: u64 = 0x10_0000;

/// Everything that a console needs around it.
struct Guest {
    _event_loop: EventLoop,
    memory: Memory,
    receive: Ring,
    transmit: Ring,
    output: Arc<Output>,
    console: Console,
}

impl Guest {
    fn new(log: Option<OwnedFd>) -> Self {
        let event_loop = EventLoop::spawn().unwrap();
        let memory = Memory::anonymous(HUGE_PAGE).unwrap();
        let output = Arc::<Output>::default();
        let console = Console::new(event_loop.handle(), Arc::clone(&output), log);
        let (receive, transmit) = (Ring::new(&memory, 0x1000, 8), Ring::new(&memory, 0x8000, 8));
        Self { _event_loop: event_loop, memory, receive, transmit, output, console }
    }

    fn offer(&mut self, text: &[u8]) {
        self.memory.write_slice(text, GuestAddress(AT)).unwrap();
        self.transmit.offer(&[Buffer { address: AT, len: text.len() as u32, writable: false }]);
    }

    fn activate(&mut self) {
        self.console
            .activate(Activation {
                memory: self.memory.clone(),
                queues: vec![self.receive.activate(), self.transmit.activate()],
                interrupt: Arc::new(Interrupt::new().unwrap()),
                features: 0,
            })
            .unwrap();
    }
}

#[test]
fn what_the_guest_says_goes_to_the_tail_and_the_log() {
    let mut log = tempfile::tempfile().unwrap();
    let mut guest = Guest::new(Some(log.as_fd().try_clone_to_owned().unwrap()));
    guest.offer(b"hello\n");
    guest.activate();
    assert_eq!(guest.transmit.used(), Some((0, 0)));
    assert_eq!(guest.output.tail(), "hello\n");
    let mut logged = String::new();
    log.rewind().unwrap();
    log.read_to_string(&mut logged).unwrap();
    assert_eq!(logged, "hello\n");
    assert!(guest.console.metrics().contains(&("logged", 6)));
}

#[test]
fn what_the_loop_has_not_come_to_is_taken_at_reset() {
    let mut guest = Guest::new(None);
    guest.activate();
    // Without a kick the loop hears nothing of it.
    guest.offer(b"last words");
    guest.console.reset();
    assert_eq!(guest.output.tail(), "last words");
}

#[test]
fn a_log_that_nobody_reads_loses_bytes_and_stops_nobody() {
    let (reader, writer) = rustix::pipe::pipe().unwrap();
    let mut guest = Guest::new(Some(writer));
    for _ in 0..8 {
        guest.offer(&[b'x'; 60_000]);
    }
    guest.activate();
    assert_eq!(guest.output.tail().len(), CONSOLE_TAIL);
    let dropped = guest.console.metrics().into_iter().find(|(name, _)| *name == "log_dropped").unwrap();
    assert!(dropped.1 > 0);
    drop(guest);
    let mut logged = Vec::new();
    File::from(reader).read_to_end(&mut logged).unwrap();
    assert_eq!(logged.len() as u64 + dropped.1, 8 * 60_000);
}

#[test]
fn a_buffer_outside_of_memory_is_counted_and_returned() {
    let mut guest = Guest::new(None);
    guest.transmit.offer(&[Buffer { address: HUGE_PAGE as u64, len: 5, writable: false }]);
    guest.activate();
    assert_eq!(guest.transmit.used(), Some((0, 0)));
    assert!(guest.console.metrics().contains(&("errors", 1)));
}

#[test]
fn the_tail_keeps_the_last_bytes() {
    let output = Output::default();
    output.say(&[b'a'; CONSOLE_TAIL]);
    output.say(b"end");
    assert_eq!(output.tail().len(), CONSOLE_TAIL);
    assert!(output.tail().ends_with("aend"));
    output.say(&[b'b'; 3 * CONSOLE_TAIL]);
    assert_eq!(output.tail(), "b".repeat(CONSOLE_TAIL));
}

#[test]
fn the_tail_fits_into_a_packet_whatever_the_guest_wrote() {
    for byte in [0x00, 0x1b, b'"', b'\\', 0x7f, 0xff, b'\n'] {
        let output = Output::default();
        output.say(&[byte; CONSOLE_TAIL]);
        let json = serde_json::to_vec(&output.tail()).unwrap();
        assert!(json.len() <= PACKET - 1024, "{byte:#x} makes {} bytes", json.len());
    }
}

#[test]
fn a_panic_of_the_guest_kernel_is_seen() {
    let output = Output::default();
    output.say(b"[    1.0] Kernel panic");
    assert!(!output.panicked());
    output.say(b" - not syncing: VFS: Unable to mount root fs\n");
    assert!(output.panicked());
}

#[test]
fn early_words_reach_the_tail_and_the_divisor_does_not() {
    let output = Arc::<Output>::default();
    let early = Early::new(Arc::clone(&output));
    // As Linux sets the UART up.
    for (port, byte) in [(0x3fb, 3), (0x3f9, 0), (0x3fb, 0x83), (0x3f8, 12), (0x3f9, 0), (0x3fb, 3)] {
        early.write(port, &[byte]);
    }
    for byte in *b"early\r\n" {
        early.write(0x3f8, &[byte]);
    }
    early.write(0x80, b"x");
    early.write(0x3fb, b"xx");
    assert_eq!(output.tail(), "early\n");
}
