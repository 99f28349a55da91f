use std::os::unix::net::UnixListener;

use super::*;

#[test]
fn the_socket_of_a_daemon_goes_when_nobody_listens_any_more() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("socket");
    forget(&socket).unwrap();
    let listener = UnixListener::bind(&socket).unwrap();
    forget(&socket).unwrap();
    assert!(socket.exists());
    drop(listener);
    forget(&socket).unwrap();
    assert!(!socket.exists());
}
