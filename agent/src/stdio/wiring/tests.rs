use std::{
    io::{Read, Write},
    os::unix::net::UnixStream,
};

use super::*;

#[tokio::test]
async fn what_the_host_did_not_open_is_dev_null() {
    let (child, wiring) = wire(Streams::default(), false).unwrap();
    let mut stdin = File::from(child.stdin);
    assert_eq!(stdin.read(&mut [0]).unwrap(), 0);
    File::from(child.stdout).write_all(b"nobody").unwrap();
    let (io, tty) = wiring.connect(None).unwrap();
    assert!(tty.is_none());
    assert_eq!(io.finish().await, Counts::default());
}

#[tokio::test]
async fn each_stream_is_counted_on_its_own() {
    let (host_out, stdout) = UnixStream::pair().unwrap();
    let (host_err, stderr) = UnixStream::pair().unwrap();
    let streams = Streams { stdout: Some(stdout.into()), stderr: Some(stderr.into()), ..Streams::default() };
    let (child, wiring) = wire(streams, false).unwrap();
    let (io, _) = wiring.connect(None).unwrap();
    File::from(child.stdout).write_all(b"out").unwrap();
    File::from(child.stderr).write_all(b"error").unwrap();
    assert_eq!(io.finish().await, Counts { stdout: 3, stderr: 5 });
    // The pumps deliver on this thread: let them, then read what is there.
    for (host, expected) in [(host_out, "out"), (host_err, "error")] {
        let host = Endpoint::new(host.into()).unwrap();
        let mut bytes = [0; 16];
        let count = host.read(&mut bytes).await.unwrap();
        assert_eq!(&bytes[..count], expected.as_bytes());
        assert_eq!(host.read(&mut bytes).await.unwrap(), 0);
    }
}

#[tokio::test]
async fn a_terminal_hangs_up_when_its_stream_is_gone() {
    let (host, stream) = UnixStream::pair().unwrap();
    let streams = Streams { tty: Some(stream.into()), ..Streams::default() };
    let (child, wiring) = wire(streams, true).unwrap();
    assert!(child.terminal);
    let pty = nix::pty::openpty(None, None).unwrap();
    let (io, tty) = wiring.connect(Some(pty.master)).unwrap();
    let tty = tty.unwrap();
    tty.resize(132, 43).unwrap();
    let size = rustix::termios::tcgetwinsize(&pty.slave).unwrap();
    assert_eq!((size.ws_col, size.ws_row), (132, 43));
    drop(host);
    File::from(pty.slave.try_clone().unwrap()).write_all(b"nobody reads this\n").unwrap();
    io.finish().await;
    assert_eq!(tty.resize(80, 24).unwrap_err().kind(), io::ErrorKind::NotConnected);
}

#[tokio::test]
async fn a_terminal_without_its_stream_is_refused() {
    assert_eq!(wire(Streams::default(), true).unwrap_err().kind(), io::ErrorKind::NotConnected);
}
