//! Whatever a pod does and however it ends, the host is as before. Every `TestHost` looks at its end; here is what needs a host
//! with mounts of its own below the volumes.

use std::{
    fs,
    path::{Path, PathBuf},
};

use bulkhead_tests::host::{Bundle, Container, DEADLINE, TestHost, process};
use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::json;

use crate::pod::{running, seen, sharing};

/// A file system of the host's at `path`, with a file `here`; its mount propagates as its parent's does.
struct Filesystem(PathBuf);

impl Filesystem {
    fn at(path: PathBuf) -> Self {
        fs::create_dir_all(&path).unwrap();
        mount(Some("host"), &path, Some("tmpfs"), MsFlags::empty(), None::<&str>).unwrap();
        fs::write(path.join("here"), "of the host\n").unwrap();
        Self(path)
    }

    /// As an operator unmounts it: not lazily.
    fn unmount(self) {
        umount2(&self.0, MntFlags::empty()).unwrap();
    }
}

/// A directory of the host with file systems below it, and what the host's mounts are with them.
struct Data<'host> {
    host: &'host TestHost,
    path: PathBuf,
    filesystems: [Filesystem; 2],
    mounts: Vec<String>,
}

impl<'host> Data<'host> {
    fn new(host: &'host TestHost) -> Self {
        let path = host.dir().join("data");
        let filesystems = [Filesystem::at(path.join("sub")), Filesystem::at(path.join("sub/deep"))];
        Self { host, path, filesystems, mounts: host.mounts() }
    }

    /// With the directory and all below it at /data.
    fn in_bundle(&self, bundle: Bundle) -> Bundle {
        bundle.push("/mounts", volume(&self.path, &["rbind"]))
    }

    fn is_there(&self) {
        self.host.assert_mounts(&self.mounts);
        assert_eq!(fs::read_to_string(self.path.join("sub/deep/here")).unwrap(), "of the host\n");
    }

    fn unmount(self) {
        self.is_there();
        let [sub, deep] = self.filesystems;
        deep.unmount();
        sub.unmount();
    }
}

fn volume(source: &Path, options: &[&str]) -> serde_json::Value {
    json!({ "destination": "/data", "type": "bind", "source": source, "options": options })
}

/// A pod of two containers, which both have the data.
fn pod<'host>(host: &'host TestHost, data: &Data<'_>) -> [Container<'host>; 2] {
    let linger = ["probe", "linger"];
    let first = running(host, "first", &data.in_bundle(host.bundle()).args(linger));
    let second = data.in_bundle(sharing(host, &first, &["network"])).args(linger);
    let second = running(host, "second", &second);
    for container in [&first, &second] {
        assert_eq!(seen(container, &["cat", "/data/sub/here", "/data/sub/deep/here"]).lines().count(), 2);
    }
    [first, second]
}

#[test]
fn the_hosts_mounts_below_a_volume_outlive_containers_and_their_pod() {
    let host = TestHost::new();
    let data = Data::new(&host);
    let [first, second] = pod(&host, &data);
    data.is_there();
    second.delete_force();
    data.is_there();
    let failing = data.in_bundle(sharing(&host, &first, &["network"])).args(["no-such-program"]);
    host.run(&failing).failure(1, &["no-such-program"]);
    data.is_there();
    let ending = data.in_bundle(sharing(&host, &first, &["network"])).args(["cat", "/data/sub/here"]);
    assert_eq!(host.run(&ending).success(), "of the host\n");
    data.is_there();
    first.delete_force();
    data.unmount();
}

#[test]
fn the_hosts_mounts_below_a_volume_outlive_a_killed_vmm_and_a_killed_server() {
    let host = TestHost::new();
    let data = Data::new(&host);
    for (name, words) in [("bulkhead-vmm", &[][..]), ("bulkhead", &["sandbox-server"])] {
        let containers = pod(&host, &data);
        let victim = process(name, words, &containers[0].id).unwrap();
        kill(Pid::from_raw(victim.cast_signed()), Signal::SIGKILL).unwrap();
        for container in &containers {
            assert_eq!(container.wait(), 137);
            container.until_status("stopped", DEADLINE);
        }
        data.is_there();
        for container in containers.iter().rev() {
            container.delete_force();
        }
        data.is_there();
    }
    data.unmount();
}

#[test]
fn what_the_host_mounts_below_a_volume_later_stays_the_hosts() {
    let host = TestHost::new();
    let path = host.dir().join("data");
    fs::create_dir_all(path.join("late")).unwrap();
    let with = |bundle: Bundle, options: &[&str]| {
        bundle.push("/mounts", volume(&path, options)).args(["probe", "linger"])
    };
    let first = running(&host, "first", &with(host.bundle(), &["rbind", "rro", "rslave"]));
    assert!(first.stderr().contains("later mounts of the host do not appear in the container"));
    let second = with(sharing(&host, &first, &["network"]), &["rbind", "rro", "rprivate"]);
    let second = running(&host, "second", &second);
    let late = Filesystem::at(path.join("late"));
    for container in [&first, &second] {
        assert_eq!(seen(container, &["ls", "/data/late"]), "");
        let written = container.exec(["touch", "/data/late/new"]);
        written.failure(1, &["Read-only file system"]);
    }
    late.unmount();
    second.delete_force();
    first.delete_force();
}

#[test]
fn a_volume_in_use_keeps_no_mount_of_the_host_busy() {
    let host = TestHost::new();
    let data = Data::new(&host);
    let holding = ["/bin/sh", "-c", "exec 3</data/sub/deep/here; echo ready; exec probe linger"];
    let first = running(&host, "first", &data.in_bundle(host.bundle()).args(holding));
    data.unmount();
    // The container keeps what it was given.
    assert_eq!(seen(&first, &["cat", "/data/sub/deep/here"]), "of the host\n");
    first.delete_force();
}
