//! What is mounted where, with which options.

use std::{
    fs,
    os::unix::fs::{PermissionsExt, chown, symlink},
};

use bulkhead_tests::{
    differential::{Case, agree},
    host::Bundle,
};
use serde_json::{Value, json};

fn tmpfs(destination: &str, options: &[&str]) -> Value {
    json!({ "destination": destination, "type": "tmpfs", "source": "tmpfs", "options": options })
}

/// Makes a directory of the host beside the rootfs and mounts it.
fn volume(bundle: Bundle, destination: &str, options: &[&str]) -> Bundle {
    let data = bundle.dir().join("data");
    fs::create_dir_all(data.join("below")).unwrap();
    fs::write(data.join("file"), "of the host\n").unwrap();
    fs::set_permissions(data.join("file"), fs::Permissions::from_mode(0o640)).unwrap();
    chown(data.join("file"), Some(1000), Some(50)).unwrap();
    fs::set_permissions(&data, fs::Permissions::from_mode(0o751)).unwrap();
    let mount = json!({ "destination": destination, "type": "bind", "source": data, "options": options });
    bundle.push("/mounts", mount)
}

/// Replaces the mount at a destination.
fn instead(bundle: Bundle, index: usize, options: &[&str]) -> Bundle {
    bundle.set(&format!("/mounts/{index}/options"), json!(options))
}

/// Reads, writes and makes files below `/data`, as far as it is let.
const USE: &str =
    "cd /data; busybox stat -c '%n %a %u:%g' . file below; cat file; echo more >> file; mkdir new
    busybox chown 5:6 new && busybox stat -c '%n %a %u:%g' new; ln -s file link; cat link; true";

#[test]
fn filesystems_are_mounted_the_same() {
    agree(&[
        Case::new("tmpfs", |bundle| {
            bundle
                .push(
                    "/mounts",
                    tmpfs("/tmp", &["nosuid", "noexec", "size=1m", "mode=1770", "uid=5", "gid=6"]),
                )
                .push("/mounts", tmpfs("/made/by/runtime", &["nodev", "ro"]))
                .push("/mounts", tmpfs("/root", &["noatime", "nodiratime", "nr_inodes=100"]))
        }),
        Case::new("tmpfs takes the mode of the image", |bundle| {
            let dir = bundle.dir().join("rootfs/var");
            fs::create_dir(&dir).unwrap();
            fs::set_permissions(&dir, fs::Permissions::from_mode(0o2751)).unwrap();
            bundle.push("/mounts", tmpfs("/var", &[]))
        }),
        Case::new("one above the other", |bundle| {
            bundle
                .push("/mounts", tmpfs("/tmp", &["size=1m"]))
                .push("/mounts", tmpfs("/tmp/below", &["size=2m"]))
                .push("/mounts", tmpfs("/tmp", &["size=3m"]))
        }),
        Case::new("tmpcopyup", |bundle| {
            bundle
                .push("/mounts", tmpfs("/etc", &["tmpcopyup"]))
                .sh("ls -ln /etc; cat /etc/passwd; touch /etc/new; true")
        }),
        Case::new("through links and dots", |bundle| {
            fs::create_dir(bundle.dir().join("rootfs/target")).unwrap();
            symlink("/target", bundle.dir().join("rootfs/link")).unwrap();
            symlink("../../../../target", bundle.dir().join("rootfs/up")).unwrap();
            bundle
                .push("/mounts", tmpfs("/link/a", &[]))
                .push("/mounts", tmpfs("/up/b", &[]))
                .push("/mounts", tmpfs("/tmp/../../c", &[]))
        }),
        Case::new("proc and sysfs with options", |bundle| {
            instead(instead(bundle, 0, &["nosuid", "noexec", "nodev", "ro"]), 5, &["nosuid", "rw"])
        }),
        Case::new("hidepid", |bundle| instead(bundle, 0, &["hidepid=2"])),
        Case::new("devpts", |bundle| {
            instead(bundle, 2, &["newinstance", "ptmxmode=0600", "mode=0600", "gid=0"])
        }),
        Case::new("cgroup to write", |bundle| instead(bundle, 6, &["nosuid", "rw"])),
        Case::new("flags one after the other", |bundle| {
            bundle.push("/mounts", tmpfs("/tmp", &["ro", "rw", "noexec", "exec", "nosuid", "suid", "nodev"]))
        }),
        Case::new("access times", |bundle| {
            bundle
                .push("/mounts", tmpfs("/a", &["strictatime"]))
                .push("/mounts", tmpfs("/b", &["relatime"]))
                .push("/mounts", tmpfs("/c", &["noatime"]))
                .push("/mounts", tmpfs("/d", &["nodiratime", "lazytime"]))
                .push("/mounts", tmpfs("/e", &["sync", "dirsync"]))
        }),
        Case::new("unknown type", |bundle| {
            bundle.push("/mounts", json!({ "destination": "/x", "type": "nosuchfs", "source": "none" }))
        })
        .refused("mounts[7].type"),
        Case::new("option that the filesystem does not know", |bundle| {
            bundle.push("/mounts", tmpfs("/tmp", &["nosuch=1"]))
        })
        .refused("nosuch"),
    ]);
}

#[test]
fn binds_and_the_rootfs_are_mounted_the_same() {
    agree(&[
        Case::new("bind", |bundle| volume(bundle, "/data", &["bind"])),
        Case::new("bind in use", |bundle| volume(bundle, "/data", &["rbind"]).sh(USE)),
        Case::new("bind read-only in use", |bundle| volume(bundle, "/data", &["rbind", "ro"]).sh(USE)),
        Case::new("bind in use by a user", |bundle| {
            let user = json!({ "uid": 1000, "gid": 1000, "additionalGids": [50] });
            volume(bundle, "/data", &["rbind"]).set("/process/user", user).sh(USE)
        }),
        Case::new("bind with options", |bundle| {
            volume(bundle, "/data", &["bind", "nosuid", "nodev", "noexec", "noatime", "ro"])
        }),
        Case::new("bind unbindable", |bundle| volume(bundle, "/data", &["bind", "unbindable"])),
        Case::new("bind of a file", |bundle| {
            let bundle = volume(bundle, "/data", &["rbind"]);
            let file = bundle.dir().join("data/file");
            bundle
                .push(
                    "/mounts",
                    json!({ "destination": "/etc/passwd", "source": file, "options": ["bind", "ro"] }),
                )
                .push("/mounts", json!({ "destination": "/new/file", "source": file, "options": ["bind"] }))
        }),
        Case::new("bind by a path relative to the bundle", |bundle| {
            volume(bundle, "/data", &["rbind"]).set("/mounts/7/source", json!("data"))
        }),
        Case::new("bind of what is not there", |bundle| {
            volume(bundle, "/data", &["rbind"]).set("/mounts/7/source", json!("/no/such/source"))
        })
        .refused("/no/such/source"),
        Case::new("bind recursively read-only", |bundle| volume(bundle, "/data", &["rbind", "rro"])),
        Case::new("bind below a bind", |bundle| {
            let bundle = volume(bundle, "/data", &["rbind"]);
            volume(bundle, "/data/below", &["rbind", "ro"])
                .sh("ls /data/below; touch /data/x; touch /data/below/x; true")
        }),
        Case::new("rootfs read-only with a tmpfs", |bundle| {
            bundle.set("/root/readonly", json!(true)).push("/mounts", tmpfs("/tmp", &["mode=1777"]))
        }),
        Case::new("rootfs slave", |bundle| bundle.set("/linux/rootfsPropagation", json!("slave"))),
        Case::new("rootfs shared", |bundle| bundle.set("/linux/rootfsPropagation", json!("shared"))),
        Case::new("files of the rootfs", |bundle| {
            let file = bundle.dir().join("rootfs/owned");
            fs::write(&file, "x").unwrap();
            chown(&file, Some(1000), Some(1001)).unwrap();
            fs::set_permissions(&file, fs::Permissions::from_mode(0o4711)).unwrap();
            bundle.sh(
                "busybox stat -c '%n %F %a %u:%g %h' /owned /bin/sh /bin /; echo y > /owned; cat /owned; true",
            )
        }),
    ]);
}
