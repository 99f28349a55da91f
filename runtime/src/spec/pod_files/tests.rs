use std::path::Path;

use super::{super::raw, add};

/// Destinations with sources and options, as they are after `add`.
fn added(json: &str) -> Vec<(String, String, Vec<String>)> {
    let mut spec: raw::Spec = raw::parse(json.as_bytes(), "config.json", "").unwrap();
    add(&mut spec, Path::new("/pod"));
    let one = |mount: raw::Mount| {
        (mount.destination.unwrap_or_default(), mount.source.unwrap_or_default(), mount.options)
    };
    spec.mounts.into_iter().map(one).collect()
}

#[test]
fn a_container_gets_what_its_bundle_does_not_have() {
    let mounts = added(
        r#"{"mounts": [{"destination": "/etc//hosts", "type": "bind", "source": "/kubelet/hosts"},
            {"destination": "/dev/shm", "type": "tmpfs", "source": "shm"}]}"#,
    );
    let sources: Vec<_> = mounts.iter().map(|(at, from, _)| (at.as_str(), from.as_str())).collect();
    let expected = [
        ("/etc//hosts", "/kubelet/hosts"),
        ("/etc/hostname", "/pod/hostname"),
        ("/etc/resolv.conf", "/pod/resolv.conf"),
        ("/dev/shm", "/pod/shm"),
    ];
    assert_eq!(sources, expected);
}

#[test]
fn a_volume_at_dev_shm_stays_and_a_read_only_root_has_read_only_files() {
    let mounts = added(
        r#"{"root": {"path": "rootfs", "readonly": true},
            "mounts": [{"destination": "/dev/shm", "type": "bind", "source": "/volume", "options": ["rw"]}]}"#,
    );
    assert_eq!(mounts.iter().filter(|(at, ..)| at == "/dev/shm").count(), 1);
    assert_eq!(mounts[0].1, "/volume");
    assert!(mounts[1..].iter().all(|(_, _, options)| options.contains(&"ro".to_owned())), "{mounts:?}");
}
