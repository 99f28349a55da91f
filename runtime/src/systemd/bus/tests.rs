use std::{os::unix::net::UnixListener, thread};

use super::*;

const PATIENCE: Duration = Duration::from_secs(30);

/// A systemd that says what it is told to, after the handshake, and keeps what it was sent.
fn peer(script: Vec<Vec<u8>>) -> (tempfile::TempDir, std::path::PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("private");
    let listener = UnixListener::bind(&path).unwrap();
    thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut byte = [0; 1];
        let mut said = Vec::new();
        while !said.ends_with(b"\r\n") {
            stream.read_exact(&mut byte).unwrap();
            said.extend(byte);
        }
        stream.write_all(b"OK 0123456789abcdef0123456789abcdef\r\n").unwrap();
        for message in script {
            stream.write_all(&message).unwrap();
        }
        // Until the other side has read all.
        let _ = stream.read_to_end(&mut said);
    });
    (dir, path)
}

/// As systemd writes it: its well-known name is the sender.
fn message(kind: u8, fields: Vec<(u8, Variant<'_>)>, body: &[u8]) -> Vec<u8> {
    let mut fields = fields;
    fields.push((7, Variant::from("org.freedesktop.systemd1")));
    let head = (b'l', kind, 0_u8, 1_u8, body.len() as u32, 1_u32, fields);
    let mut bytes = zbus::wire::to_bytes(Context::new(Endian::Little, 0), &head).unwrap().to_vec();
    bytes.resize(bytes.len().next_multiple_of(8), 0);
    bytes.extend(body);
    bytes
}

fn text(text: &str) -> Vec<u8> {
    zbus::wire::to_bytes(Context::new(Endian::Little, 0), text).unwrap().to_vec()
}

#[test]
fn signals_are_kept_that_come_before_anybody_waits_for_them() {
    let signal = |member, body| message(SIGNAL, vec![(FIELD_MEMBER, Variant::from(member))], &text(body));
    let script = vec![signal("UnitNew", "no"), signal("JobRemoved", "first"), signal("JobRemoved", "second")];
    let (_dir, path) = peer(script);
    let mut bus = Bus::connect(&path, PATIENCE).unwrap();
    assert_eq!(read::<String>(&bus.signal("JobRemoved").unwrap()).unwrap(), "first");
    assert_eq!(read::<String>(&bus.signal("JobRemoved").unwrap()).unwrap(), "second");
}

#[test]
fn a_message_that_is_too_long_or_none_is_refused() {
    let mut long = message(SIGNAL, Vec::new(), b"");
    long[4..8].copy_from_slice(&u32::MAX.to_le_bytes());
    for bytes in [long, b"no message, by far".to_vec()] {
        let (_dir, path) = peer(vec![bytes]);
        let mut bus = Bus::connect(&path, PATIENCE).unwrap();
        assert!(matches!(bus.signal("JobRemoved"), Err(BusError::Message { .. })));
    }
}

#[test]
fn a_peer_that_is_silent_is_given_up() {
    let (_dir, path) = peer(Vec::new());
    let mut bus = Bus::connect(&path, Duration::from_millis(200)).unwrap();
    assert!(matches!(bus.signal("JobRemoved"), Err(BusError::Late(_))));
}
