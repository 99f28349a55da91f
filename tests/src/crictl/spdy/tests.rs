use std::net::TcpListener;

use super::*;

/// A frame of the server.
fn frame(word: u32, flags: u8, payload: &[u8]) -> Vec<u8> {
    [&framed(word, flags, payload.len())[..], payload].concat()
}

/// A server of one client, which agrees and then does as it is told.
fn server(serve: impl FnOnce(&mut TcpStream) + Send + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        let (mut socket, _) = listener.accept().unwrap();
        head(&mut BufReader::with_capacity(1, socket.try_clone().unwrap())).unwrap();
        socket.write_all(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: SPDY/3.1\r\n\r\n").unwrap();
        serve(&mut socket);
        // Until the client goes.
        let _ = socket.read_to_end(&mut Vec::new());
    });
    format!("http://{address}/exec/token")
}

/// Takes the opening of the first stream, and replies.
fn take_up(socket: &mut TcpStream, headers: &[(&str, &str)]) {
    let mut opened = opening(1, headers);
    let wanted = opened.clone();
    socket.read_exact(&mut opened).unwrap();
    assert_eq!(opened, wanted);
    socket.write_all(&frame(CONTROL | u32::from(SYN_REPLY), 0, &1_u32.to_be_bytes())).unwrap();
}

#[test]
fn headers_are_stored_blocks_of_one_zlib_stream() {
    let first = opening(1, &[("streamtype", "error")]);
    let block = b"\0\0\0\x01\0\0\0\x0astreamtype\0\0\0\x05error";
    let head = [&[0x80, 3, 0, 1, 0, 0, 0][..], &[49], &1_u32.to_be_bytes(), &[0; 6], &[0x78, 1]].concat();
    let stored = [&[0, 27, 0, !27, !0][..], block, &[0, 0, 0, 0xff, 0xff]].concat();
    assert_eq!(first, [head, stored.clone()].concat());
    // The head of the zlib stream comes once.
    let second = opening(3, &[("streamtype", "error")]);
    assert_eq!(second[18..], stored);
}

#[test]
fn a_stream_carries_bytes_and_ends_either_way() {
    let headers = [("streamtype", "data")];
    let url = server(move |socket| {
        take_up(socket, &headers);
        let mut taken = [0; 8 + 2 + 8];
        socket.read_exact(&mut taken).unwrap();
        assert_eq!(taken[..], [frame(1, 0, b"in"), frame(1, FIN, b"")].concat());
        socket.write_all(&[frame(1, 0, b"ou"), frame(1, FIN, b"t")].concat()).unwrap();
    });
    let connection = Connection::open(&url, "test").unwrap();
    let (mut outgoing, mut incoming) = connection.stream(&headers).unwrap();
    outgoing.write_all(b"in").unwrap();
    outgoing.end().unwrap();
    let mut text = String::new();
    incoming.read_to_string(&mut text).unwrap();
    assert_eq!(text, "out");
}

#[test]
fn a_reset_or_a_server_that_goes_ends_what_is_read() {
    for end in [RST_STREAM, GOAWAY] {
        let url = server(move |socket| {
            take_up(socket, &[]);
            let last = [&1_u32.to_be_bytes()[..], &[0; 4]].concat();
            let frames = [frame(1, 0, b"some"), frame(CONTROL | u32::from(end), 0, &last)];
            socket.write_all(&frames.concat()).unwrap();
        });
        let connection = Connection::open(&url, "test").unwrap();
        let (_, mut incoming) = connection.stream(&[]).unwrap();
        let mut text = String::new();
        incoming.read_to_string(&mut text).unwrap();
        assert_eq!(text, "some", "{end}");
    }
}

#[test]
fn what_is_refused_says_why() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/exec/token", listener.local_addr().unwrap());
    thread::spawn(move || {
        let (mut socket, _) = listener.accept().unwrap();
        head(&mut BufReader::with_capacity(1, socket.try_clone().unwrap())).unwrap();
        socket.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 5\r\n\r\ngone\n").unwrap();
    });
    let refused = Connection::open(&url, "test").unwrap_err();
    assert_eq!(refused.to_string(), "no streams: HTTP/1.1 404 Not Found: gone");
    for wrong in ["", "https://127.0.0.1/", "http://127.0.0.1"] {
        assert!(matches!(Connection::open(wrong, "test"), Err(SpdyError::Url(_))), "{wrong}");
    }
}
