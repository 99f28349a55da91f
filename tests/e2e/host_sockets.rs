//! Unix sockets of the host in containers, where the operator allows them: who connects in the guest reaches the server on the host.

use std::{
    fs,
    io::{Read as _, Write as _},
    os::unix::{
        fs::PermissionsExt as _,
        net::{UnixListener, UnixStream},
    },
    path::Path,
    sync::mpsc::{self, Receiver},
    thread,
};

use bulkhead_tests::{
    host::{Bundle, DEADLINE, TestHost, finish},
    probe::serve::answer,
};
use serde_json::json;

use crate::pod::{running, seen, sharing};

/// A server of the host, which ends with this process. A first connection is handed out, the others are answered.
fn server(path: &Path) -> Receiver<UnixStream> {
    let listener = UnixListener::bind(path).unwrap();
    let (first, handed_out) = mpsc::channel();
    thread::spawn(move || {
        first.send(listener.accept().unwrap().0).unwrap();
        for client in listener.incoming().flatten() {
            // What fails here is the client's.
            thread::spawn(move || answer(&client));
        }
    });
    handed_out
}

/// With the options that podman and containerd give.
fn mounted(bundle: Bundle, source: &Path, destination: &str) -> Bundle {
    let options = ["rbind", "rprivate", "nosuid", "nodev", "rw"];
    let mount = json!({ "destination": destination, "type": "bind", "source": source, "options": options });
    bundle.push("/mounts", mount)
}

#[test]
fn a_container_reaches_the_sockets_of_the_host_that_the_operator_allows() {
    let dir = tempfile::tempdir().unwrap();
    let dir = fs::canonicalize(dir.path()).unwrap();
    let host = TestHost::configured(&format!("host_sockets = ['{}/api-*.sock']\n", dir.display()));
    let [allowed, refused] = ["api-1.sock", "other.sock"].map(|name| dir.join(name));
    let handed_out = server(&allowed);
    fs::set_permissions(&allowed, fs::Permissions::from_mode(0o660)).unwrap();
    let _other = UnixListener::bind(&refused).unwrap();
    // Not by a link either: the real path counts.
    let link = dir.join("api-link.sock");
    std::os::unix::fs::symlink("other.sock", &link).unwrap();
    for path in [&refused, &link] {
        let bundle = mounted(host.bundle(), path, "/run/api.sock");
        let mut command = host.bulkhead(["create", "--bundle"]);
        let id = host.id("refused");
        let words = &["is a unix socket", "host_sockets"];
        finish(command.arg(bundle.write()).arg(&id), b"", DEADLINE).failure(1, words);
    }

    // The second container of the pod has the same socket elsewhere.
    let script = "probe exchange /run/api.sock 5 & exec probe linger";
    let first = running(&host, "first", &mounted(host.bundle().sh(script), &allowed, "/run/api.sock"));
    let second = sharing(&host, &first, &["network"]).args(["probe", "linger"]);
    let second = running(&host, "second", &mounted(second, &allowed, "/other/place.sock"));

    let mut peer = handed_out.recv_timeout(DEADLINE).unwrap();
    let mut received = [0; 5];
    peer.read_exact(&mut received).unwrap();

    let exchange = |path: &str| format!("probe exchange {path} 1000000");
    assert_eq!(seen(&first, &["sh", "-c", &exchange("/run/api.sock")]), "whole\n");
    let several = format!("for n in 1 2 3 4; do {} & done; wait", exchange("/other/place.sock"));
    assert_eq!(seen(&second, &["sh", "-c", &several]), "whole\n".repeat(4));
    // The file is the host's by mode and owner.
    assert_eq!(seen(&first, &["busybox", "stat", "-c", "%F %a %u", "/run/api.sock"]), "socket 660 0\n");
    let stranger = ["exec", "--user", "1000:1000", &first.id, "probe", "exchange", "/run/api.sock", "1"];
    assert_eq!(host.output(stranger).success(), "EACCES\n");

    // One connection is open when the containers end.
    second.delete_force();
    peer.write_all(b"still there").unwrap();
    first.delete_force();
    let ended = peer.read(&mut received);
    assert!(ended.as_ref().map_or(true, |count| *count == 0), "{ended:?}");
    host.assert_no_trace();
}
