use std::{
    io::{Read as _, Write as _},
    os::unix::{
        fs::{FileTypeExt as _, MetadataExt as _},
        net::UnixStream,
    },
};

use super::*;

fn own_file() -> SocketFile {
    SocketFile {
        mode: 0o640,
        uid: rustix::process::getuid().as_raw(),
        gid: rustix::process::getgid().as_raw(),
    }
}

fn name(number: u64) -> SharePath {
    SharePath::of_volume(number)
}

#[tokio::test]
async fn a_connection_waits_under_a_number_until_it_is_taken_once() {
    let dir = tempfile::tempdir().unwrap();
    let sockets = HostSockets::default();
    let places = [("a", 3), ("b", 4)].map(|(file, volume)| (dir.path().join(file), name(volume)));
    let _listening = places.clone().map(|(path, volume)| sockets.listen(&path, own_file(), volume).unwrap());
    let seen = fs::metadata(&places[0].0).unwrap();
    assert!(seen.file_type().is_socket() && seen.mode() & 0o7777 == 0o640);

    for (expected, (path, volume)) in places.iter().enumerate() {
        let mut program = UnixStream::connect(path).unwrap();
        assert_eq!(sockets.wait().await, [(expected as u64, volume.clone())]);
        let accepted = sockets.take(expected as u64).unwrap();
        assert!(sockets.take(expected as u64).is_none());
        let mut host = UnixStream::from(accepted.stream);
        host.set_nonblocking(false).unwrap();
        host.write_all(b"hello").unwrap();
        let mut received = [0; 5];
        program.read_exact(&mut received).unwrap();
        assert_eq!(sockets.0.places.available_permits(), limits::RELAYS - 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_the_host_does_not_take_is_closed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("socket");
    let sockets = HostSockets::default();
    let _listening = sockets.listen(&path, own_file(), name(0)).unwrap();
    let mut program = UnixStream::connect(&path).unwrap();
    let told = sockets.wait().await;
    sleep(limits::RELAY_CONNECT * 2).await;
    assert!(sockets.take(told[0].0).is_none());
    assert_eq!(program.read(&mut [0]).unwrap(), 0);
}

#[tokio::test]
async fn no_more_are_accepted_than_may_be_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("socket");
    let sockets = HostSockets::default();
    let _listening = sockets.listen(&path, own_file(), name(0)).unwrap();
    // The backlog takes them beyond that.
    let programs: Vec<_> = (0..=limits::RELAYS).map(|_| UnixStream::connect(&path).unwrap()).collect();
    let mut told = 0;
    while told < limits::RELAYS {
        told += sockets.wait().await.len();
    }
    assert_eq!(sockets.0.places.available_permits(), 0);
    drop(sockets.take(0));
    assert_eq!(sockets.wait().await, [(limits::RELAYS as u64, name(0))]);
    drop(programs);
}

#[tokio::test]
async fn the_file_goes_with_the_last_user() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("socket");
    let sockets = HostSockets::default();
    drop(sockets.listen(&path, own_file(), name(0)).unwrap());
    assert!(!path.exists());
    // What cannot be made whole is not left half made.
    let foreign = SocketFile { uid: u32::MAX - 2, ..own_file() };
    if !rustix::process::geteuid().is_root() {
        assert!(sockets.listen(&path, foreign, name(0)).is_err());
        assert!(!path.exists());
    }
}
