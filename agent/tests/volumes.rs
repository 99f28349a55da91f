//! Volumes that containers made by `container-init` on this machine share.

// Every function here is part of a test.
#![allow(clippy::unwrap_used)]

#[cfg(test)]
mod support;

use std::{
    fs,
    os::unix::{fs::MetadataExt, net::UnixStream},
};

use bulkhead_agent::container::{Created, create};
use bulkhead_protocol::container::{
    ContainerSpec, Memory, MountSource, Place, SocketFile, Volume, VolumeKind,
};
use support::{End, Host, bind, host, mount, remove, share_path, spec, wait};

/// A tmpfs of the guest at /dev/shm.
fn memory(spec: &mut ContainerSpec) {
    let kind = VolumeKind::Memory(Memory { bytes: 1 << 20, mode: 0o1777, uid: 0, gid: 5 });
    let volume = Volume { name: share_path("@1"), kind };
    let place = Place { volume, path: None, attributes: 0 };
    spec.mounts.retain(|mount| mount.destination != "/dev/shm");
    spec.mounts.push(mount("/dev/shm", MountSource::Bind { place, submounts: vec![] }));
}

/// A container of its own beside those of the host.
async fn another(host: &Host, name: &str, script: &str, change: impl FnOnce(&mut ContainerSpec)) -> Created {
    let mut spec = spec(&["sh", "-c", script]);
    change(&mut spec);
    let id = format!("{}-{name}", host.id).parse().unwrap();
    let null = || fs::File::options().read(true).write(true).open("/dev/null").unwrap().into();
    let stdio = bulkhead_agent::container::ChildStdio {
        stdin: null(),
        stdout: null(),
        stderr: null(),
        terminal: false,
    };
    create(&host.layout, &id, &spec, stdio, None).await.unwrap()
}

async fn end(created: Created) {
    let Created { pid, gate, cgroup, volumes, .. } = created;
    gate.release().await.unwrap();
    assert_eq!(wait(pid), End::Code(0));
    cgroup.kill_all().unwrap();
    remove(&cgroup);
    volumes.let_go().await;
}

#[tokio::test]
async fn memory_is_one_for_all_containers_that_name_it_and_gone_with_the_last() {
    let Some(host) = host() else { return };
    let held = another(&host, "held", "true", memory).await;
    end(another(&host, "writer", "echo shared > /dev/shm/word", memory).await).await;
    let script =
        "cat /dev/shm/word; stat -c '%a %u:%g' /dev/shm; grep -c ' /dev/shm .*size=1024k' /proc/mounts";
    assert_eq!(host.shell(memory, script).await, "shared\n1777 0:5\n1\n");
    end(held).await;
    host.assert_clean();
    assert_eq!(host.shell(memory, "cat /dev/shm/word 2> /dev/null || echo none").await, "none\n");
    host.assert_clean();
}

#[tokio::test]
async fn a_volume_is_mounted_once_and_a_path_in_it_is_that_of_the_volume() {
    let Some(host) = host() else { return };
    let data = host.share().join("@0/data");
    fs::create_dir_all(&data).unwrap();
    fs::write(data.join("file"), "text").unwrap();
    let inode = data.join("file").metadata().unwrap().ino();
    let change = |spec: &mut ContainerSpec| {
        spec.mounts.push(bind("/all", "@0"));
        spec.mounts.push(bind("/new/data", "@0/data"));
        spec.mounts.push(bind("/new/file", "@0/data/file"));
    };
    let script = "for file in /all/data/file /new/data/file /new/file; do stat -c %i $file; done";
    assert_eq!(host.shell(change, script).await, format!("{inode}\n").repeat(3));
    host.assert_clean();
    assert_eq!(fs::read_dir(host.share().join("volumes")).unwrap().count(), 0);
}

/// A socket of the host at /run/api.sock.
fn socket(spec: &mut ContainerSpec) {
    let kind = VolumeKind::Socket(SocketFile { mode: 0o660, uid: 7, gid: 8 });
    let place = Place { volume: Volume { name: share_path("@2"), kind }, path: None, attributes: 0 };
    spec.mounts.push(mount("/run/api.sock", MountSource::Bind { place, submounts: vec![] }));
}

#[tokio::test]
async fn a_socket_of_the_host_is_one_file_for_all_containers_and_who_connects_is_told_of() {
    let Some(host) = host() else { return };
    let held = another(&host, "held", "true", socket).await;
    let script = "test -S /run/api.sock && stat -c '%a %u:%g' /run/api.sock";
    assert_eq!(host.shell(socket, script).await, "660 7:8\n");
    let sockets = host.layout.volumes.sockets().clone();
    let _client = UnixStream::connect(format!("/proc/{}/root/run/api.sock", held.pid)).unwrap();
    let told = sockets.wait().await;
    assert_eq!(told, [(0, share_path("@2"))]);
    assert!(sockets.take(0).is_some());
    end(held).await;
    host.assert_clean();
    assert_eq!(fs::read_dir(host.share().join("volumes")).unwrap().count(), 0);
}
