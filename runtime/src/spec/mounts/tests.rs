use std::os::unix::net::UnixListener;

use serde_json::{Value, json};

use super::super::fixture::{Fixture, bundle, one};
use super::*;

fn with(mount: Value) -> Fixture {
    bundle().set("mounts", one(mount))
}

/// A bundle with the directory `data` and the file `file`.
fn with_bind(options: &[&str]) -> Fixture {
    let spec = with(json!({"destination": "/data", "type": "bind", "source": "data", "options": options}));
    fs::create_dir(spec.dir().join("data")).unwrap();
    fs::write(spec.dir().join("file"), "").unwrap();
    spec
}

#[test]
fn each_filesystem_of_the_guest_is_taken() {
    for kind in FILESYSTEMS {
        let guest = with(json!({"destination": "/x", "type": kind, "source": "shown"})).guest();
        let source = MountSource::Filesystem { kind: kind.into(), source: "shown".into() };
        assert_eq!((guest.mounts[0].destination.as_str(), &guest.mounts[0].source), ("/x", &source));
    }
    for kind in ["cgroup", "cgroup2"] {
        assert_eq!(
            with(json!({"destination": "/x", "type": kind})).guest().mounts[0].source,
            MountSource::Cgroup
        );
    }
}

#[test]
fn another_filesystem_is_refused_with_those_that_work() {
    let refusal = with(json!({"destination": "/x", "type": "nfs"})).refusal();
    let expected = "mounts[0].type is not supported: \"nfs\" is not one of bind, cgroup, cgroup2, proc, ";
    assert!(refusal.starts_with(expected), "{refusal}");
    assert_eq!(with(json!({"destination": "/x"})).refusal(), "mounts[0].type is missing");
}

#[test]
fn flags_data_and_order_reach_the_guest() {
    let mounts = bundle().guest().mounts;
    let places: Vec<&str> = mounts.iter().map(|mount| mount.destination.as_str()).collect();
    let expected = ["/proc", "/dev", "/dev/pts", "/dev/shm", "/dev/mqueue", "/sys", "/sys/fs/cgroup"];
    assert_eq!(places, expected);
    assert_eq!(mounts[1].data, ["mode=755", "size=65536k"]);
    assert_eq!((mounts[1].set, mounts[1].clear), (0x2 | 0x20, 0x70));
    assert_eq!(mounts[5].set, 0x1 | 0x2 | 0x4 | 0x8);
}

#[test]
fn a_destination_must_be_absolute() {
    assert_eq!(with(json!({"type": "proc"})).refusal(), "mounts[0].destination is missing");
    let refusal = with(json!({"type": "proc", "destination": "x"})).refusal();
    assert_eq!(refusal, "mounts[0].destination: \"x\" is not an absolute path");
}

#[test]
fn a_bind_becomes_an_export_of_that_source_alone() {
    let spec = with_bind(&["rbind", "ro"]);
    let loaded = spec.load().unwrap();
    let data = fs::canonicalize(spec.dir()).unwrap().join("data");
    let share = SharePath::try_from("web/mounts/0".to_owned()).unwrap();
    let expected = Export {
        source: data,
        share: share.clone(),
        directory: true,
        read_only: true,
        read_only_recursive: false,
        recursive: true,
    };
    assert_eq!(loaded.host.exports, [expected]);
    assert_eq!(loaded.guest.mounts[0].source, MountSource::Bind { path: share, recursive: true });
    assert_eq!(loaded.guest.mounts[0].set, 0x1);
}

#[test]
fn the_type_or_an_option_makes_a_bind() {
    let spec = with(json!({"destination": "/d", "type": "none", "source": "rootfs", "options": ["bind"]}));
    assert!(!spec.load().unwrap().host.exports[0].recursive);
    let spec = with(json!({"destination": "/d", "type": "bind", "source": "rootfs"}));
    assert!(!spec.load().unwrap().host.exports[0].recursive);
}

#[test]
fn recursive_read_only_is_kept_on_the_host_too() {
    let export = |options: &[&str]| with_bind(options).load().unwrap().host.exports.remove(0);
    let both = export(&["rbind", "rro"]);
    assert!(both.read_only && both.read_only_recursive);
    let alone = export(&["bind", "rro"]);
    assert!(alone.read_only && !alone.read_only_recursive);
    assert!(!export(&["rbind", "ro", "rw"]).read_only);
}

#[test]
fn a_file_and_a_symlink_to_one_are_exported_as_the_file() {
    let spec = with_bind(&[]).set(
        "mounts",
        json!([
            {"destination": "/a", "type": "bind", "source": "file"},
            {"destination": "/b", "type": "bind", "source": "link"},
            {"destination": "/p", "type": "proc"}
        ]),
    );
    std::os::unix::fs::symlink("file", spec.dir().join("link")).unwrap();
    let loaded = spec.load().unwrap();
    let exports = &loaded.host.exports;
    assert_eq!(exports.len(), 2);
    assert!(exports.iter().all(|export| !export.directory && export.source.ends_with("file")));
    assert_eq!((exports[0].share.as_str(), exports[1].share.as_str()), ("web/mounts/0", "web/mounts/1"));
}

#[test]
fn a_missing_source_is_named() {
    let spec = with(json!({"destination": "/d", "type": "bind", "source": "gone"}));
    let refusal = spec.refusal();
    assert!(
        refusal.starts_with("mounts[0].source: /") && refusal.contains("/gone: No such file"),
        "{refusal}"
    );
    let refusal = with(json!({"destination": "/d", "type": "bind"})).refusal();
    assert_eq!(refusal, "mounts[0].source is missing");
}

#[test]
fn what_a_share_cannot_carry_is_refused_with_the_reason() {
    let refusal_of = |source: &str| {
        let spec = with(json!({"destination": "/d", "type": "bind", "source": source}));
        let _listener = UnixListener::bind(spec.dir().join("socket")).unwrap();
        nix::unistd::mkfifo(&spec.dir().join("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        spec.refusal()
    };
    assert!(refusal_of("socket").contains("socket is a unix socket: "));
    assert!(refusal_of("fifo").contains("fifo is a fifo: "));
    assert!(refusal_of("/dev/null").contains("/dev/null is a device of the host"));
    assert!(refusal_of("fifo").starts_with("mounts[0].source is not supported: /"));
}

#[test]
fn an_option_that_is_not_supported_is_named_with_its_place() {
    for option in ["idmap", "ridmap", "tmpcopyup"] {
        let refusal =
            with(json!({"destination": "/d", "type": "tmpfs", "options": ["ro", option]})).refusal();
        assert_eq!(refusal, format!("mounts[0].options[1] {option:?} is not supported yet"));
    }
}

#[test]
fn id_mappings_of_a_mount_are_refused_by_name() {
    for field in ["uidMappings", "gidMappings"] {
        let mut mount = json!({"destination": "/d", "type": "tmpfs"});
        mount[field] = json!([{"containerID": 0, "hostID": 1, "size": 1}]);
        assert_eq!(with(mount).refusal(), format!("mounts[0].{field} is not supported yet"));
    }
}

#[test]
fn a_bind_cannot_propagate_to_the_host() {
    let refusal = with_bind(&["rbind", "rshared"]).refusal();
    assert!(refusal.starts_with("mounts[0].options shared or rshared is not supported: "), "{refusal}");
    assert_eq!(with_bind(&["rbind", "rslave"]).warnings().len(), 1);
    let private = with_bind(&["rbind", "rprivate"]);
    assert!(private.warnings().is_empty());
    assert_eq!(private.guest().mounts[0].propagation.unwrap().mode, PropagationMode::Private);
}

#[test]
fn data_of_a_filesystem_on_a_bind_is_dropped_with_a_warning() {
    let spec = with_bind(&["rbind", "size=1k", "sync"]);
    assert_eq!(spec.warnings(), ["mounts[0]: size=1k has no meaning for a bind"]);
    let mount = &spec.guest().mounts[0];
    assert!(mount.data.is_empty() && mount.super_flags.is_empty());
}
