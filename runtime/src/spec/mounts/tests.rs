use std::os::unix::net::UnixListener;

use serde_json::{Value, json};

use super::super::fixture::{Fixture, bundle, one};
use super::{super::Policy, *};

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
        kind: ExportKind::Directory,
        read_only: true,
        read_only_recursive: false,
        recursive: true,
        shared_memory: false,
        id_map: None,
    };
    assert_eq!(loaded.host.exports, [expected]);
    assert_eq!(loaded.guest.mounts[0].source, MountSource::Export { name: share });
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
    assert!(exports.iter().all(|export| export.kind == ExportKind::File && export.source.ends_with("file")));
    assert_eq!((exports[0].share.as_str(), exports[1].share.as_str()), ("web/mounts/0", "web/mounts/1"));
}

#[test]
fn shared_memory_is_known_by_its_place() {
    let shared = |destination: &str| {
        let mount = json!({"destination": destination, "type": "bind", "source": "rootfs"});
        with(mount).load().unwrap().host.exports[0].shared_memory
    };
    assert!(shared("/dev/shm") && shared("//dev/./shm/"));
    assert!(!shared("/dev/shm/x") && !shared("/dev") && !shared("/mnt/dev/shm"));
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
fn a_socket_is_an_export_where_the_operator_allows_its_real_path() {
    let bind = |extra: serde_json::Value| {
        let mut mount = json!({"destination": "/d", "type": "bind", "source": "link"});
        mount.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        with(mount)
    };
    let loaded = |spec: &Fixture, pattern: &str| {
        let dir = fs::canonicalize(spec.dir()).unwrap();
        let _listener = UnixListener::bind(dir.join("socket")).unwrap();
        std::os::unix::fs::symlink("socket", dir.join("link")).unwrap();
        let patterns = vec![format!("{}/{pattern}", dir.display())];
        let policy = Policy { sockets: patterns.try_into().unwrap(), ..Policy::default() };
        (dir, spec.load_within(&policy).map_err(|error| error.to_string()))
    };
    let (dir, allowed) = loaded(&bind(json!({})), "s*t");
    let export = &allowed.unwrap().host.exports[0];
    assert_eq!((export.kind, &*export.source), (ExportKind::Socket, &*dir.join("socket")));
    let (_, refused) = loaded(&bind(json!({})), "link");
    assert!(
        refused.unwrap_err().contains("no pattern in host_sockets of the configuration fits its real path")
    );
    let map = json!([{"containerID": 0, "hostID": 1000, "size": 1}]);
    let (_, refused) = loaded(&bind(json!({"uidMappings": map, "gidMappings": map})), "socket");
    assert!(refused.unwrap_err().contains("a unix socket of the host has no id mapping"));
}

#[test]
fn a_copy_of_the_image_is_for_a_tmpfs_alone() {
    let tmpfs = json!({"destination": "/d", "type": "tmpfs", "options": ["tmpcopyup"]});
    assert!(with(tmpfs).guest().mounts[0].copy_up);
    let refusal = with_bind(&["rbind", "tmpcopyup"]).refusal();
    let expected = "mounts[0].options tmpcopyup is not supported: only a tmpfs can have tmpcopyup";
    assert_eq!(refusal, expected);
}

#[test]
fn a_remount_changes_attributes_and_no_filesystem() {
    let spec = |options: &[&str]| with(json!({"destination": "/d", "type": "tmpfs", "options": options}));
    let mount = spec(&["remount", "ro", "nosuid"]).guest().mounts.remove(0);
    assert_eq!((mount.source, mount.set), (MountSource::Remount, 0x1 | 0x2));
    let refusal = spec(&["remount", "size=1k"]).refusal();
    assert!(
        refusal.starts_with("mounts[0].options \"size=1k\" with remount is not supported: "),
        "{refusal}"
    );
    // A bind is made with its attributes at once.
    assert!(matches!(
        with_bind(&["bind", "remount", "ro"]).guest().mounts[0].source,
        MountSource::Export { .. }
    ));
}

/// `count` ids from `container` on.
fn maps(container: u32, host: u32, count: u32) -> Value {
    json!([{"containerID": container, "hostID": host, "size": count}])
}

#[test]
fn the_mapping_of_a_mount_is_taken_with_both_its_halves() {
    let mut mount = json!({"destination": "/d", "type": "tmpfs", "uidMappings": maps(0, 1000, 2)});
    assert_eq!(with(mount.clone()).refusal(), "mounts[0].gidMappings is missing");
    mount["gidMappings"] = maps(5, 6, 1);
    let map = with(mount.clone()).guest().mounts[0].id_map.clone().unwrap();
    assert_eq!(map.uids, [IdMapping { container: 0, host: 1000, size: 2 }]);
    assert_eq!((map.gids, map.recursive), (vec![IdMapping { container: 5, host: 6, size: 1 }], false));
    mount["options"] = json!(["ridmap"]);
    assert!(with(mount.clone()).guest().mounts[0].id_map.clone().unwrap().recursive);
    mount["gidMappings"] = maps(0, 0, 0);
    assert_eq!(with(mount.clone()).refusal(), "mounts[0].gidMappings[0]: size is 0");
    mount["uidMappings"] = json!([]);
    assert_eq!(with(mount).refusal(), "mounts[0].uidMappings is missing");
}

#[test]
fn the_mapping_of_a_bind_is_made_on_the_host() {
    let mut mount =
        json!({"destination": "/d", "type": "bind", "source": "rootfs", "options": ["rbind", "ridmap"]});
    mount["uidMappings"] = maps(0, 1000, 2);
    mount["gidMappings"] = maps(0, 1000, 2);
    let loaded = with(mount).load().unwrap();
    assert_eq!(loaded.guest.mounts[0].id_map, None);
    let map = loaded.host.exports[0].id_map.clone().unwrap();
    assert!(map.recursive && map.uids[0].host == 1000);
}

#[test]
fn an_id_map_without_mappings_is_that_of_the_container_or_refused() {
    let mount = json!({"destination": "/d", "type": "tmpfs", "options": ["idmap"]});
    let refusal = with(mount.clone()).refusal();
    assert!(refusal.starts_with("mounts[0].options idmap or ridmap: an id-mapped mount needs"), "{refusal}");
    let mapped = with(mount)
        .set(
            "linux.namespaces",
            json!([{"type": "mount"}, {"type": "network"}, {"type": "uts"}, {"type": "user"}]),
        )
        .set("linux.uidMappings", maps(0, 100_000, 65_536))
        .set("linux.gidMappings", maps(0, 200_000, 65_536));
    let map = mapped.guest().mounts[0].id_map.clone().unwrap();
    assert_eq!((map.uids[0].host, map.gids[0].host, map.recursive), (100_000, 200_000, false));
}

#[test]
fn what_cannot_have_an_id_map_is_refused() {
    for kind in ["proc", "sysfs", "devpts", "mqueue", "cgroup"] {
        let mount = json!({"destination": "/d", "type": kind, "uidMappings": maps(0, 1, 1), "gidMappings": maps(0, 1, 1)});
        let expected = "mounts[0].type is not supported: only a bind or a tmpfs can have an id mapping";
        assert_eq!(with(mount).refusal(), expected, "{kind}");
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
