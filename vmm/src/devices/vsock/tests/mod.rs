//! What a host program and a guest kernel see of the device: bytes, ends of file, refusals, credit.

mod guest;
mod hostile;

use std::{
    io::Write,
    net::Shutdown,
    os::{fd::OwnedFd, unix::net::UnixStream},
    time::{Duration, Instant},
};

use self::guest::{Cut, Guest, Peer, Random, at_end, connect, read, write};
use super::packet::{Op, SHUTDOWN_RECEIVE, SHUTDOWN_SEND};

const WINDOW: u32 = 256 << 10;

/// Small enough for every boundary inside a header and a payload to be hit.
fn tiny() -> Cut {
    Cut { rx: vec![7, 40, 3, 11], tx: 13 }
}

#[test]
fn a_client_gets_ok_and_then_a_byte_stream_in_both_directions() {
    let mut guest = Guest::new();
    let (mut client, mut peer) = connect(&mut guest, WINDOW);
    client.write_all(b"to the guest").unwrap();
    peer.sync(&mut guest);
    assert_eq!(peer.received, b"to the guest");
    peer.write(&mut guest, b"to the host");
    assert_eq!(read(&mut client), b"to the host");
}

#[test]
fn bytes_behind_the_newline_belong_to_the_guest() {
    let mut guest = Guest::new();
    let mut client = guest.raw_client();
    client.write_all(b"CONNECT 1025\nfirst").unwrap();
    let packets = guest.drain();
    let mut peer = Peer::new(packets[0].header.src_port, 1025, WINDOW);
    assert_eq!(packets.len(), 1, "no data before the guest has answered");
    guest.send(&peer.header(Op::Response), &[]);
    peer.sync(&mut guest);
    assert_eq!(peer.received, b"first");
}

#[test]
fn a_line_may_come_in_pieces() {
    let mut guest = Guest::new();
    let mut client = guest.raw_client();
    for piece in ["CON", "NECT 10", "25", "\n"] {
        assert!(guest.drain().is_empty());
        client.write_all(piece.as_bytes()).unwrap();
    }
    assert_eq!(guest.drain()[0].header.dst_port, 1025);
}

#[test]
fn a_client_that_speaks_nonsense_is_closed_without_a_word() {
    let lines =
        ["\n", "CONNECT\n", "CONNECT +1\n", "CONNECT 1 \n", "CONNECT 4294967296\n", "connect 1\n", "OK 1\n"];
    let endless = "CONNECT 000000000000000000000000001";
    for line in lines.into_iter().chain([endless]) {
        let mut guest = Guest::new();
        let mut client = guest.raw_client();
        client.write_all(line.as_bytes()).unwrap();
        assert!(guest.drain().is_empty(), "{line:?}");
        // A reset instead of an end of file when bytes were left unread.
        assert!(client.write(b"x").is_err(), "{line:?}");
        assert_eq!(guest.metrics.refused.get(), 1);
    }
}

#[test]
fn a_client_that_says_nothing_is_closed_at_its_deadline() {
    let mut guest = Guest::new();
    let mut client = guest.raw_client();
    guest.step();
    let deadline = guest.worker.muxer.deadline().unwrap();
    guest.worker.muxer.expire(deadline - Duration::from_millis(1));
    assert!(!at_end(&mut client));
    guest.worker.muxer.expire(deadline);
    assert!(at_end(&mut client));
    assert_eq!(guest.worker.muxer.deadline(), None);
}

#[test]
fn a_guest_that_never_answers_loses_the_stream_at_the_deadline() {
    let mut guest = Guest::new();
    let mut client = guest.client(1025);
    assert_eq!(guest.drain().len(), 1);
    guest.worker.muxer.expire(Instant::now() + Duration::from_secs(60));
    assert!(at_end(&mut client));
    let packets = guest.drain();
    assert_eq!(packets[0].header.op, Op::Reset as u16);
    assert_eq!(guest.metrics.closed.get(), 1);
}

#[test]
fn a_port_that_the_guest_refuses_closes_the_client() {
    let mut guest = Guest::new();
    let mut client = guest.client(7);
    let request = guest.drain().remove(0).header;
    let peer = Peer::new(request.src_port, 7, 0);
    guest.send(&peer.header(Op::Reset), &[]);
    assert!(at_end(&mut client));
    assert!(guest.drain().is_empty(), "a reset is not answered");
}

#[test]
fn a_client_that_leaves_before_the_answer_resets_the_request() {
    let mut guest = Guest::new();
    let client = guest.client(1025);
    let request = guest.drain().remove(0).header;
    drop(client);
    let packets = guest.drain();
    assert_eq!(packets.len(), 1);
    assert_eq!((packets[0].header.op, packets[0].header.src_port), (Op::Reset as u16, request.src_port));
}

#[test]
fn the_guest_reaches_the_ports_of_the_table_once_each_and_no_other() {
    let (mut host, port) = UnixStream::pair().unwrap();
    host.set_nonblocking(true).unwrap();
    let mut guest = Guest::with(Cut::default(), [(1024, OwnedFd::from(port))]);
    let mut peer = Peer::new(1024, 50_000, WINDOW);
    guest.send(&peer.header(Op::Request), &[]);
    let packets = guest.drain();
    assert_eq!(packets.len(), 1);
    assert_eq!(packets[0].header.op, Op::Response as u16);
    peer.take(&packets);
    peer.write(&mut guest, b"greeting");
    assert_eq!(read(&mut host), b"greeting");
    host.write_all(b"answer").unwrap();
    peer.sync(&mut guest);
    assert_eq!(peer.received, b"answer");

    for (host_port, guest_port) in [(1024, 50_001), (1025, 50_002), (22, 50_003)] {
        let mut other = Peer::new(host_port, guest_port, WINDOW);
        guest.send(&other.header(Op::Request), &[]);
        other.sync(&mut guest);
        assert!(other.reset, "port {host_port}");
    }
    assert!(!at_end(&mut host), "the first stream lives on");
}

#[test]
fn the_host_hears_when_the_guest_closes_a_table_port() {
    let (mut host, port) = UnixStream::pair().unwrap();
    host.set_nonblocking(true).unwrap();
    let copy_of_the_server = port.try_clone().unwrap();
    let mut guest = Guest::with(Cut::default(), [(1024, OwnedFd::from(port))]);
    let peer = Peer::new(1024, 50_000, WINDOW);
    guest.send(&peer.header(Op::Request), &[]);
    guest.send(&peer.header(Op::Reset), &[]);
    assert!(at_end(&mut host), "even while another process holds a copy of the descriptor");
    drop(copy_of_the_server);
}

#[test]
fn what_was_sent_before_a_shutdown_or_a_reset_reaches_a_slow_reader() {
    for end in [Op::Shutdown, Op::Reset] {
        let mut guest = Guest::new();
        let (mut client, mut peer) = connect(&mut guest, WINDOW);
        let bytes = Random(1).bytes(400 << 10);
        let mut sent = 0;
        // The client reads nothing: the socket fills, then the window.
        loop {
            let n = peer.write(&mut guest, &bytes[sent..]);
            peer.sync(&mut guest);
            sent += n;
            if n == 0 {
                break;
            }
        }
        assert!(sent > WINDOW as usize);
        match end {
            Op::Shutdown => peer.shutdown(&mut guest, SHUTDOWN_SEND | SHUTDOWN_RECEIVE),
            _ => guest.send(&peer.header(Op::Reset), &[]),
        }
        let mut received = read(&mut client);
        while !at_end_after_step(&mut guest, &mut client, &mut received) {}
        assert!(received == bytes[..sent], "{} of {sent} bytes", received.len());
        peer.sync(&mut guest);
        assert_eq!(peer.reset, end == Op::Shutdown, "a shutdown of both directions is answered with a reset");
        assert_eq!(guest.metrics.closed.get(), 1);
    }
}

fn at_end_after_step(guest: &mut Guest, client: &mut UnixStream, received: &mut Vec<u8>) -> bool {
    guest.step();
    let more = read(client);
    received.extend(&more);
    more.is_empty() && at_end(client)
}

#[test]
fn the_hosts_half_close_reaches_the_guest_behind_the_data_and_the_other_direction_lives_on() {
    let mut guest = Guest::new();
    let (mut client, mut peer) = connect(&mut guest, 100);
    client.write_all(&[7; 250]).unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    peer.sync(&mut guest);
    assert_eq!((peer.received.len(), peer.shutdown), (100, 0), "no credit for the rest");
    peer.read_all(&mut guest);
    peer.sync(&mut guest);
    assert_eq!((peer.received.len(), peer.shutdown), (200, 0));
    peer.read_all(&mut guest);
    peer.sync(&mut guest);
    assert_eq!((peer.received.len(), peer.shutdown, peer.reset), (250, SHUTDOWN_SEND, false));
    peer.write(&mut guest, b"still here");
    assert_eq!(read(&mut client), b"still here");
    peer.shutdown(&mut guest, SHUTDOWN_SEND);
    peer.sync(&mut guest);
    assert!(peer.reset, "both directions are over");
    assert!(at_end(&mut client));
}

#[test]
fn the_guests_half_close_is_an_end_of_file_and_the_host_writes_on() {
    let mut guest = Guest::new();
    let (mut client, mut peer) = connect(&mut guest, WINDOW);
    peer.write(&mut guest, b"last words");
    peer.shutdown(&mut guest, SHUTDOWN_SEND);
    assert_eq!(read(&mut client), b"last words");
    assert!(at_end(&mut client));
    client.write_all(b"and mine").unwrap();
    peer.sync(&mut guest);
    assert_eq!((peer.received.as_slice(), peer.reset), (&b"and mine"[..], false));
    client.shutdown(Shutdown::Write).unwrap();
    peer.sync(&mut guest);
    assert!(peer.reset);
    assert_eq!(guest.metrics.closed.get(), 1);
}

#[test]
fn a_guest_that_stops_reading_breaks_the_hosts_pipe() {
    let mut guest = Guest::new();
    let (mut client, mut peer) = connect(&mut guest, WINDOW);
    peer.shutdown(&mut guest, SHUTDOWN_RECEIVE);
    assert_eq!(client.write(b"x").unwrap_err().kind(), std::io::ErrorKind::BrokenPipe);
    peer.write(&mut guest, b"but it writes");
    assert_eq!(read(&mut client), b"but it writes");
}

#[test]
fn a_host_that_leaves_tells_an_idle_guest_at_once() {
    let mut guest = Guest::new();
    let (mut client, mut peer) = connect(&mut guest, WINDOW);
    client.write_all(b"parting gift").unwrap();
    drop(client);
    peer.sync(&mut guest);
    assert_eq!(peer.received, b"parting gift");
    assert!(peer.reset);
}

#[test]
fn a_host_that_left_is_told_to_a_guest_without_room_for_the_rest() {
    let mut guest = Guest::new();
    let (mut client, mut peer) = connect(&mut guest, 10);
    client.write_all(&[1; 30]).unwrap();
    drop(client);
    peer.sync(&mut guest);
    assert_eq!((peer.received.len(), peer.shutdown, peer.reset), (10, SHUTDOWN_RECEIVE, false));
    // What the guest sends meanwhile is forgotten, with credit.
    for _ in 0..20 {
        assert_eq!(peer.write(&mut guest, &[0; 60 << 10]), 60 << 10);
        peer.sync(&mut guest);
    }
    for _ in 0..2 {
        peer.read_all(&mut guest);
        peer.sync(&mut guest);
    }
    assert_eq!(peer.received.len(), 30);
    peer.read_all(&mut guest);
    peer.sync(&mut guest);
    assert!(peer.reset);
}

#[test]
fn the_host_never_sends_more_than_the_guest_has_room_for() {
    for cut in [Cut::default(), tiny()] {
        let mut guest = Guest::with(cut, []);
        let (mut client, mut peer) = connect(&mut guest, 1000);
        let bytes = Random(2).bytes(10_500);
        client.write_all(&bytes).unwrap();
        for full in 1..=10 {
            peer.sync(&mut guest);
            assert_eq!(peer.received.len(), 1000 * full);
            peer.read_all(&mut guest);
        }
        peer.sync(&mut guest);
        assert!(peer.received == bytes);
    }
}

#[test]
fn a_slow_host_stops_the_guest_and_loses_nothing() {
    for cut in [Cut::default(), tiny()] {
        // A tiny chain of the driver carries at most what 60 descriptors of 13 bytes hold.
        let piece = if cut.tx == 13 { 700 } else { 64 << 10 };
        let mut guest = Guest::with(cut, []);
        let (mut client, mut peer) = connect(&mut guest, WINDOW);
        let bytes = Random(3).bytes(2 << 20);
        let (mut sent, mut received): (usize, Vec<u8>) = (0, Vec::new());
        while received.len() < bytes.len() {
            while sent < bytes.len() {
                let end = bytes.len().min(sent + piece);
                let n = peer.write(&mut guest, &bytes[sent..end]);
                peer.sync(&mut guest);
                sent += n;
                if n == 0 {
                    break;
                }
            }
            assert!(sent - received.len() <= 1 << 20, "the guest runs away from the reader");
            let mut chunk = vec![0; 100_000];
            let n = std::io::Read::read(&mut client, &mut chunk).unwrap();
            received.extend(&chunk[..n]);
            peer.sync(&mut guest);
        }
        assert!(received == bytes);
    }
}

#[test]
fn old_and_invented_credit_of_the_guest_is_ignored() {
    let mut guest = Guest::new();
    let (mut client, mut peer) = connect(&mut guest, 100);
    client.write_all(&[1; 500]).unwrap();
    peer.sync(&mut guest);
    peer.read_all(&mut guest);
    peer.sync(&mut guest);
    assert_eq!(peer.received.len(), 200);
    for lie in [0, 99, 201, 5000, u32::MAX] {
        guest.send(&super::packet::Header { fwd_cnt: lie, ..peer.header(Op::CreditUpdate) }, &[]);
        peer.sync(&mut guest);
        assert_eq!(peer.received.len(), 200, "fwd_cnt {lie}");
    }
    peer.read_all(&mut guest);
    peer.sync(&mut guest);
    assert_eq!(peer.received.len(), 300);
}

#[test]
fn a_credit_request_is_answered() {
    let mut guest = Guest::new();
    let (_client, mut peer) = connect(&mut guest, WINDOW);
    peer.write(&mut guest, b"12345");
    guest.send(&peer.header(Op::CreditRequest), &[]);
    let packets = guest.drain();
    assert_eq!(packets.len(), 1);
    assert_eq!((packets[0].header.op, packets[0].header.fwd_cnt), (Op::CreditUpdate as u16, 5));
}

#[test]
fn busy_streams_take_turns() {
    let mut guest = Guest::new();
    let mut streams: Vec<_> = (0..4).map(|_| connect(&mut guest, WINDOW)).collect();
    for (client, _) in &mut streams {
        write(client, &[9; 100 << 10]);
    }
    guest.step();
    let packets = guest.packets();
    assert!(packets.len() >= 16);
    for round in packets[..16].chunks(4) {
        let mut ports: Vec<_> = round.iter().map(|packet| packet.header.src_port).collect();
        ports.sort_unstable();
        ports.dedup();
        assert_eq!(ports.len(), 4, "each stream once per round");
    }
}

#[test]
fn five_hundred_fast_exits_are_byte_exact() {
    let mut random = Random(4);
    let mut guest = Guest::new();
    for _ in 0..500 {
        let (mut client, mut peer) = connect(&mut guest, WINDOW);
        let len = random.below(200 << 10) as usize;
        let bytes = random.bytes(len);
        let (mut sent, mut received) = (0, Vec::new());
        while sent < len {
            sent += peer.write(&mut guest, &bytes[sent..]);
            if random.below(3) == 0 {
                received.extend(read(&mut client));
            }
            peer.sync(&mut guest);
            if peer.credit() == 0 {
                received.extend(read(&mut client));
                peer.sync(&mut guest);
            }
        }
        peer.shutdown(&mut guest, SHUTDOWN_SEND | SHUTDOWN_RECEIVE);
        while !at_end_after_step(&mut guest, &mut client, &mut received) {}
        assert!(received == bytes);
        peer.sync(&mut guest);
        assert!(peer.reset);
    }
    assert_eq!(guest.metrics.closed.get(), 500);
    assert_eq!(guest.metrics.violations.get(), 0);
}
