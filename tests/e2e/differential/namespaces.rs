//! Namespaces: which are the container's own, and what belongs to each.

use bulkhead_tests::{
    differential::{Case, agree},
    host::Bundle,
};
use serde_json::json;

fn only(bundle: Bundle, kinds: &[&str]) -> Bundle {
    let namespaces: Vec<_> = kinds.iter().map(|kind| json!({ "type": kind })).collect();
    bundle.set("/linux/namespaces", json!(namespaces))
}

fn mapped(bundle: Bundle) -> Bundle {
    let map = json!([
        { "containerID": 0, "hostID": 0, "size": 1000 },
        { "containerID": 1000, "hostID": 201_000, "size": 1000 }
    ]);
    bundle
        .push("/linux/namespaces", json!({ "type": "user" }))
        .set("/linux/uidMappings", map.clone())
        .set("/linux/gidMappings", map)
}

#[test]
fn namespaces_are_the_same() {
    agree(&[
        Case::new("hostname and domainname", |bundle| {
            bundle.set("/hostname", json!("a.host.of-mine")).set("/domainname", json!("domain.example"))
        }),
        Case::new("shared ipc", |bundle| only(bundle, &["pid", "network", "uts", "mount", "cgroup"])),
        Case::new("shared cgroup", |bundle| only(bundle, &["pid", "network", "uts", "mount", "ipc"])),
        Case::new("shared uts", |bundle| {
            only(bundle, &["pid", "network", "ipc", "mount", "cgroup"]).remove("", "hostname")
        }),
        Case::new("hostname without uts", |bundle| {
            only(bundle, &["pid", "network", "ipc", "mount", "cgroup"])
        })
        .refused("hostname")
        .by_runc(),
        Case::new("user", mapped),
        Case::new("user, not root", |bundle| {
            mapped(bundle).set("/process/user", json!({ "uid": 1000, "gid": 5 }))
        }),
        Case::new("a type twice", |bundle| bundle.push("/linux/namespaces", json!({ "type": "ipc" })))
            .refused("linux.namespaces")
            .by_runc(),
        Case::new("unknown type", |bundle| bundle.push("/linux/namespaces", json!({ "type": "nosuch" })))
            .refused("linux.namespaces"),
    ]);
}

#[test]
fn settings_of_namespaces_are_the_same() {
    agree(&[
        Case::new("sysctl", |bundle| {
            bundle.set(
                "/linux/sysctl",
                json!({
                    "net.ipv4.ip_forward": "1",
                    "net.core.somaxconn": "256",
                    "net.ipv4.ip_unprivileged_port_start": "80",
                    "net.ipv4.ping_group_range": "0 100",
                    "net.ipv6.conf.all.disable_ipv6": "1",
                    "kernel.msgmax": "4096",
                    "kernel.shmmni": "99",
                    "kernel.sem": "100 200 30 40",
                    "fs.mqueue.msg_max": "20"
                }),
            )
        }),
        Case::new("sysctl of the whole kernel", |bundle| {
            bundle.set("/linux/sysctl", json!({ "kernel.panic": "1" }))
        })
        .refused("kernel.panic")
        .by_runc(),
        Case::new("sysctl of another namespace", |bundle| {
            only(bundle, &["pid", "network", "uts", "mount", "cgroup"])
                .set("/linux/sysctl", json!({ "kernel.msgmax": "4096" }))
        })
        .refused("kernel.msgmax")
        .by_runc(),
        Case::new("sysctl that there is none", |bundle| {
            bundle.set("/linux/sysctl", json!({ "net.nosuch.key": "1" }))
        })
        .refused("nosuch"),
    ]);
}
