//! Mounts of containers made by `container-init` on this machine: id maps, propagation, attributes, remounts.

// Every function here is part of a test.
#![allow(clippy::unwrap_used)]

#[cfg(test)]
mod support;

use std::{fs, path::PathBuf};

use bulkhead_protocol::container::{
    ContainerSpec, IdMap, Mount, MountSource, Place, Propagation, PropagationMode, Submount, Volume,
    VolumeKind,
};
use rustix::mount::{MountFlags, UnmountFlags};
use support::{Host, bind, filesystem, host, ids, mount, place, share_path, spec};

/// MOUNT_ATTR_RDONLY, NOSUID, NODIRATIME of linux/mount.h.
const READ_ONLY: u64 = 0x1;
const NO_SUID: u64 = 0x2;
const NO_DIR_ATIME: u64 = 0x80;

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
async fn a_filesystem_that_cannot_be_mapped_is_told() {
    let Some(host) = host() else { return };
    for filesystem in [filesystem("/p", "proc", &[]), bind("/p", "c/rootfs")] {
        let id_map = Some(IdMap { uids: ids(0, 1, 1), gids: ids(0, 1, 1), recursive: false });
        let mut spec = spec(&["sh"]);
        spec.mounts.push(Mount { id_map, ..filesystem });
        let error = host.create(&spec).await.unwrap_err().chain();
        assert_eq!(error, r#"mount "/p": an id map needs a tmpfs"#);
    }
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
    let volume = Volume { name: share_path("c/data/below"), kind: VolumeKind::Share };
    let below_it = |attributes| {
        let place = Place { volume: volume.clone(), path: None, attributes };
        vec![Submount { below: share_path("below"), place }]
    };
    let whole = |destination: &str, attributes| {
        mount(destination, MountSource::Bind { place: place("c/data"), submounts: below_it(attributes) })
    };
    let change = |spec: &mut ContainerSpec| {
        spec.mounts.push(Mount { recursive_set: READ_ONLY | NO_DIR_ATIME, ..whole("/recursive", 0) });
        spec.mounts.push(Mount { set: READ_ONLY, ..whole("/top", 0) });
        // As they are on the host, which their parents do not change.
        spec.mounts.push(whole("/there", READ_ONLY | NO_SUID));
        spec.mounts.push(Mount { recursive_clear: READ_ONLY, ..whole("/cleared", READ_ONLY) });
    };
    let script =
        "touch /recursive/below/x; touch /top/x; touch /top/below/y; touch /there/z; touch /there/below/z
        cat /proc/self/mountinfo";
    let out = host.shell(change, script).await;
    // The place of the test may add its own, such as nosuid.
    let has = |path: &str, option: &str| {
        let line = out.lines().find(|line| line.split(' ').nth(4) == Some(path)).unwrap();
        line.split(' ').nth(5).unwrap().split(',').any(|is| is == option)
    };
    assert!(has("/recursive/below", "ro") && has("/recursive/below", "nodiratime"), "{out}");
    assert!(has("/top", "ro") && has("/top/below", "rw"), "{out}");
    assert!(has("/there", "rw") && has("/there/below", "ro") && has("/there/below", "nosuid"), "{out}");
    assert!(has("/cleared/below", "rw"), "{out}");
    let made = ["x", "y", "z"].map(|name| below.0.join(name).exists());
    assert_eq!(made, [false, true, false]);
}

#[tokio::test]
async fn more_mounts_than_the_bound_are_refused_before_anything_is_made() {
    let Some(host) = host() else { return };
    let mut spec = spec(&["sh"]);
    spec.mounts = (0..10_000).map(|number| filesystem(&format!("/m/{number}"), "tmpfs", &[])).collect();
    assert_eq!(
        host.create(&spec).await.unwrap_err().chain(),
        "mounts: 10000 are given, and at most 512 are supported"
    );
    spec.mounts.truncate(400);
    spec.mounts.push(filesystem("/proc", "proc", &[]));
    let out =
        host.shell(|changed| changed.mounts = spec.mounts.clone(), "grep -c ' /m/' /proc/self/mounts").await;
    assert_eq!(out, "400\n");
    host.assert_clean();
}
