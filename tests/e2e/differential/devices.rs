//! Devices: the nodes, and what the filter lets through.

use bulkhead_tests::{
    differential::{Case, agree},
    host::Bundle,
};
use serde_json::json;

/// Uses devices, and makes nodes of others, as far as it is let.
const USE: &str =
    "echo x > /dev/null; busybox head -c 2 /dev/zero | busybox od; busybox head -c 1 /dev/full | busybox od
    echo x > /dev/full; cd /tmp; busybox mknod null c 1 3; busybox mknod mem c 1 1; busybox mknod kmsg c 1 11
    busybox mknod loop b 7 0; busybox mknod pipe p; ls; for node in null mem kmsg; do probe try $node; done";

/// With a place for nodes and the right to make them.
fn with_nodes(bundle: Bundle) -> Bundle {
    let place =
        json!({ "destination": "/tmp", "type": "tmpfs", "source": "tmpfs", "options": ["mode=1777"] });
    let sets = ["bounding", "effective", "permitted"];
    let push = |bundle: Bundle, set| bundle.push(&format!("/process/capabilities/{set}"), json!("CAP_MKNOD"));
    sets.into_iter().fold(bundle.push("/mounts", place), push).sh(USE)
}

#[test]
fn devices_are_made_and_guarded_the_same() {
    agree(&[
        Case::new("nodes", |bundle| {
            bundle.set(
                "/linux/devices",
                json!([
                    { "path": "/dev/nothing", "type": "c", "major": 1, "minor": 3, "fileMode": 0o620, "uid": 7, "gid": 8 },
                    { "path": "/dev/deep/down/zero", "type": "c", "major": 1, "minor": 5, "fileMode": 0o444 },
                    { "path": "/dev/pipe", "type": "p", "fileMode": 0o600, "uid": 1000, "gid": 1000 },
                    { "path": "/elsewhere/full", "type": "c", "major": 1, "minor": 7, "fileMode": 0o666 }
                ]),
            )
        }),
        Case::new("a default one with another mode", |bundle| {
            let device =
                json!([{ "path": "/dev/null", "type": "c", "major": 1, "minor": 3, "fileMode": 0o600 }]);
            bundle.set("/linux/devices", device)
        }),
        Case::new("tun and fuse", |bundle| {
            bundle.set(
                "/linux/devices",
                json!([
                    { "path": "/dev/net/tun", "type": "c", "major": 10, "minor": 200, "fileMode": 0o666 },
                    { "path": "/dev/fuse", "type": "c", "major": 10, "minor": 229, "fileMode": 0o666 }
                ]),
            )
        }),
        Case::new("no rules", with_nodes),
        Case::new("all refused", |bundle| {
            let refused = json!({ "devices": [{ "allow": false, "access": "rwm" }] });
            with_nodes(bundle).set("/linux/resources", refused)
        }),
        Case::new("some let through", |bundle| {
            let some = json!({ "devices": [
                { "allow": false, "access": "rwm" },
                { "allow": true, "type": "c", "major": 1, "minor": 11, "access": "rw" }
            ] });
            with_nodes(bundle).set("/linux/resources", some)
        }),
        Case::new("dev without a mount", |bundle| {
            let mounts = json!([
                { "destination": "/proc", "type": "proc", "source": "proc" },
                { "destination": "/sys", "type": "sysfs", "source": "sysfs" }
            ]);
            bundle.set("/mounts", mounts)
        }),
    ]);
}
