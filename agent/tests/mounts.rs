//! Mounts of containers made by `container-init` on this machine: id maps, propagation, attributes, remounts.

// Every function here is part of a test.
#![allow(clippy::unwrap_used)]

#[cfg(test)]
mod support;

use std::{
    fs,
    os::unix::fs::{MetadataExt, chown},
    path::PathBuf,
};

use bulkhead_protocol::container::{ContainerSpec, IdMap, Mount, MountSource, Propagation, PropagationMode};
use rustix::mount::{MountFlags, UnmountFlags};
use support::{Host, bind, filesystem, host, ids, mount, spec, user_namespace};

/// MOUNT_ATTR_RDONLY, NOSUID, NODIRATIME of linux/mount.h.
const READ_ONLY: u64 = 0x1;
const NO_SUID: u64 = 0x2;
const NO_DIR_ATIME: u64 = 0x80;

fn mapped(mount: Mount, first: u32, recursive: bool) -> Mount {
    let id_map = IdMap { uids: ids(0, first, 65_536), gids: ids(0, first + 1, 65_536), recursive };
    Mount { id_map: Some(id_map), ..mount }
}

fn data(host: &Host) -> PathBuf {
    let data = host.share().join("c/data");
    fs::create_dir(&data).unwrap();
    fs::write(data.join("file"), "text").unwrap();
    data
}

/// A filesystem of this machine, mounted below the share.
struct Below(PathBuf);

impl Below {
    fn mount(path: PathBuf) -> Self {
        fs::create_dir(&path).unwrap();
        rustix::mount::mount("tmpfs", &path, "tmpfs", MountFlags::empty(), None).unwrap();
        Self(path)
    }
}

impl Drop for Below {
    fn drop(&mut self) {
        rustix::mount::unmount(&self.0, UnmountFlags::DETACH).unwrap();
    }
}

#[tokio::test]
async fn a_mapped_bind_shows_other_owners_and_maps_new_files_back() {
    let Some(host) = host() else { return };
    let data = data(&host);
    chown(data.join("file"), Some(7), Some(7)).unwrap();
    let change = |spec: &mut ContainerSpec| {
        spec.mounts.push(mapped(bind("/data", "c/data"), 1000, false));
        (spec.process.user.uid, spec.process.user.gid) = (1000, 1001);
    };
    let out = host.shell(change, "stat -c %u:%g /data /data/file; echo > /data/new").await;
    assert_eq!(out, "1000:1001\n1007:1008\n");
    let new = data.join("new").metadata().unwrap();
    assert_eq!((new.uid(), new.gid()), (0, 0));
}

#[tokio::test]
async fn the_map_of_a_mount_covers_those_below_it_only_when_asked_to() {
    let Some(host) = host() else { return };
    let below = Below::mount(data(&host).join("below"));
    for (recursive, owner) in [(true, "1000"), (false, "0")] {
        let mount = mapped(bind("/data", "c/data"), 1000, recursive);
        let out = host.shell(|spec| spec.mounts.push(mount), "stat -c %u /data /data/below").await;
        assert_eq!(out, format!("1000\n{owner}\n"));
    }
    drop(below);
}

#[tokio::test]
async fn a_mapped_tmpfs_is_made_with_mode_and_content_of_its_place() {
    let Some(host) = host() else { return };
    fs::write(host.rootfs().join("tmp/file"), "image").unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o1770);
    fs::set_permissions(host.rootfs().join("tmp"), mode).unwrap();
    let id_map = IdMap { uids: ids(5, 0, 10), gids: ids(6, 0, 10), recursive: false };
    let tmp = || {
        let tmpfs = filesystem("/tmp", "tmpfs", &["size=1m", "uid=5", "gid=7"]);
        Mount { copy_up: true, id_map: Some(id_map.clone()), ..tmpfs }
    };
    let script = "stat -c '%a %u:%g' /tmp; cat /tmp/file; grep ' /tmp ' /proc/self/mountinfo";
    let out = host.shell(|spec| spec.mounts.push(tmp()), script).await;
    assert!(out.starts_with("1770 0:1\nimage") && out.contains("idmapped"), "{out}");
}

#[tokio::test]
async fn a_user_namespace_has_mounts_with_its_own_map() {
    let Some(host) = host() else { return };
    chown(host.rootfs(), Some(100_000), Some(100_000)).unwrap();
    for directory in ["proc", "sys", "dev", "tmp", "root"] {
        chown(host.rootfs().join(directory), Some(100_000), Some(100_000)).unwrap();
    }
    let data = data(&host);
    let change = |spec: &mut ContainerSpec| {
        user_namespace(spec);
        let own = |mount| {
            let (uids, gids) = (ids(0, 100_000, 65_536), ids(0, 100_000, 65_536));
            Mount { id_map: Some(IdMap { uids, gids, recursive: false }), ..mount }
        };
        spec.mounts.push(own(bind("/data", "c/data")));
        spec.mounts.push(own(filesystem("/tmp", "tmpfs", &["mode=1777"])));
    };
    let script = "stat -c %u /data/file /tmp; echo > /tmp/x && echo > /data/new && stat -c %u /tmp/x";
    assert_eq!(host.shell(change, script).await, "0\n0\n0\n");
    assert_eq!(data.join("new").metadata().unwrap().uid(), 0);
}

#[tokio::test]
async fn a_filesystem_that_cannot_be_mapped_is_told() {
    let Some(host) = host() else { return };
    let mut spec = spec(&["sh"]);
    spec.mounts.push(mapped(filesystem("/p", "proc", &[]), 0, false));
    let error = host.create(&spec).await.unwrap_err().chain();
    assert_eq!(error, r#"an id map of "/p" needs a bind or a tmpfs"#);
    host.assert_clean();
}

#[tokio::test]
async fn a_remount_changes_the_attributes_of_what_is_mounted() {
    let Some(host) = host() else { return };
    let remount = |path: &str| Mount { set: READ_ONLY | NO_SUID, ..mount(path, MountSource::Remount) };
    let change = |spec: &mut ContainerSpec| {
        spec.mounts.push(filesystem("/tmp", "tmpfs", &[]));
        spec.mounts.push(remount("/tmp"));
    };
    let out = host.shell(change, "touch /tmp/x; grep ' /tmp ' /proc/self/mountinfo").await;
    assert!(out.contains(" /tmp ro,nosuid,"), "{out}");

    let mut spec = spec(&["sh"]);
    spec.mounts.push(remount("/etc"));
    let error = host.create(&spec).await.unwrap_err().chain();
    assert_eq!(error, "remount /etc: nothing is mounted there");
    host.assert_clean();
}

#[tokio::test]
async fn propagation_holds_inside_the_container() {
    let Some(host) = host() else { return };
    let change = |spec: &mut ContainerSpec| {
        for (path, mode, recursive) in [
            ("/shared", PropagationMode::Shared, false),
            ("/rshared", PropagationMode::Shared, true),
            ("/unbindable", PropagationMode::Unbindable, true),
            ("/private", PropagationMode::Private, false),
            ("/slave", PropagationMode::Slave, true),
        ] {
            let propagation = Some(Propagation { mode, recursive });
            spec.mounts.push(Mount { propagation, ..filesystem(path, "tmpfs", &[]) });
        }
        spec.rootfs.propagation = Some(Propagation { mode: PropagationMode::Shared, recursive: false });
    };
    let out = host.shell(change, "cat /proc/self/mountinfo").await;
    let tags = |path: &str| {
        let line = out.lines().find(|line| line.split(' ').nth(4) == Some(path)).unwrap();
        let tags: Vec<&str> = line.split(' ').skip(6).take_while(|word| *word != "-").collect();
        tags.iter().map(|tag| tag.split(':').next().unwrap()).collect::<Vec<_>>().join(" ")
    };
    let seen = ["/", "/shared", "/rshared", "/unbindable", "/private", "/slave", "/proc"].map(tags);
    assert_eq!(seen, ["shared", "shared", "shared", "unbindable", "", "", ""]);
}

#[tokio::test]
async fn recursive_attributes_reach_the_mounts_below_a_bind() {
    let Some(host) = host() else { return };
    let below = Below::mount(data(&host).join("below"));
    let change = |spec: &mut ContainerSpec| {
        let recursive = Mount { recursive_set: READ_ONLY | NO_DIR_ATIME, ..bind("/recursive", "c/data") };
        spec.mounts.push(recursive);
        spec.mounts.push(Mount { set: READ_ONLY, ..bind("/top", "c/data") });
    };
    let script = "touch /recursive/below/x; touch /top/x; touch /top/below/y; cat /proc/self/mountinfo";
    let out = host.shell(change, script).await;
    let options = |path: &str| {
        let line = out.lines().find(|line| line.split(' ').nth(4) == Some(path)).unwrap();
        line.split(' ').nth(5).unwrap().to_owned()
    };
    assert_eq!(options("/recursive/below"), "ro,nodiratime,relatime");
    assert_eq!((options("/top"), options("/top/below")), ("ro,relatime".into(), "rw,relatime".into()));
    assert!(!below.0.join("x").exists() && below.0.join("y").exists());
}

#[tokio::test]
async fn more_mounts_than_the_bound_are_refused_before_anything_is_made() {
    let Some(host) = host() else { return };
    let mut spec = spec(&["sh"]);
    spec.mounts = (0..10_000).map(|number| filesystem(&format!("/m/{number}"), "tmpfs", &[])).collect();
    assert_eq!(host.create(&spec).await.unwrap_err().chain(), "10000 mounts are more than 512");
    spec.mounts.truncate(400);
    spec.mounts.push(filesystem("/proc", "proc", &[]));
    let out =
        host.shell(|changed| changed.mounts = spec.mounts.clone(), "grep -c ' /m/' /proc/self/mounts").await;
    assert_eq!(out, "400\n");
    host.assert_clean();
}
