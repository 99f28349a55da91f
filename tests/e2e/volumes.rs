//! Volumes: the containers of a pod share what a kernel shares, and each has what it asks for of what is mounted below.

use std::{
    fs,
    os::unix::net::UnixListener,
    path::{Path, PathBuf},
};

use bulkhead_tests::host::{Bundle, DEADLINE, TestHost, until};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use serde_json::{Value, json};

use crate::pod::{running, seen, sharing};

fn volume(source: &Path, destination: &str, options: &[&str]) -> Value {
    json!({ "destination": destination, "type": "bind", "source": source, "options": options })
}

fn with(bundle: Bundle, mounts: &[(&Path, &str, &[&str])]) -> Bundle {
    mounts.iter().fold(bundle, |bundle, (source, destination, options)| {
        bundle.push("/mounts", volume(source, destination, options))
    })
}

/// A mount of the host, taken away at the end.
struct Mounted(PathBuf);

impl Mounted {
    fn tmpfs(path: PathBuf, options: &str) -> Self {
        fs::create_dir_all(&path).unwrap();
        mount(Some("host"), &path, Some("tmpfs"), MsFlags::empty(), Some(options)).unwrap();
        Self(path)
    }

    fn bind(source: &Path, path: PathBuf) -> Self {
        fs::create_dir_all(&path).unwrap();
        mount(Some(source), &path, None::<&str>, MsFlags::MS_BIND, None::<&str>).unwrap();
        Self(path)
    }

    fn on_file(source: &Path, path: PathBuf) -> Self {
        fs::write(&path, "").unwrap();
        mount(Some(source), &path, None::<&str>, MsFlags::MS_BIND, None::<&str>).unwrap();
        Self(path)
    }

    fn remount(&self, flags: MsFlags) {
        let flags = MsFlags::MS_REMOUNT | MsFlags::MS_BIND | flags;
        mount(None::<&str>, &self.0, None::<&str>, flags, None::<&str>).unwrap();
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = umount2(&self.0, MntFlags::empty());
    }
}

pub(crate) const ALL: &str = "flock held, record held, map 4711, fifo through, watch new, append whole\n";

/// The places in the pod's share that have a volume, or none.
fn volumes_of(host: &TestHost) -> Vec<String> {
    let mut names = Vec::new();
    let mut todo = vec![host.root()];
    while let Some(path) = todo.pop() {
        for entry in fs::read_dir(path).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.strip_prefix('@').is_some_and(|number| number.parse::<u64>().is_ok()) {
                names.push(name);
            } else if entry.file_type().unwrap().is_dir() && name != "rootfs" {
                todo.push(entry.path());
            }
        }
    }
    names.sort();
    names
}

#[test]
fn containers_of_a_pod_share_sockets_fifos_locks_pages_and_watches() {
    let host = TestHost::new();
    let data = host.dir().join("data");
    for name in ["sub/deep", "bound", "host"] {
        fs::create_dir_all(data.join(name)).unwrap();
    }
    fs::write(data.join("file"), "").unwrap();
    // As podman and containerd have it for a pod, and as Kubernetes has a subPath.
    let shm = Mounted::tmpfs(host.dir().join("shm"), "size=1m,mode=1777");
    let bound = Mounted::bind(&data.join("bound"), host.dir().join("elsewhere"));
    let places = ["/data", "/data/sub/deep", "/data/bound", "/dev/shm"];
    let meet: String = places.iter().map(|place| format!("probe meet {place} & ")).collect();
    let shared = volume(&shm.0, "/dev/shm", &["bind", "rprivate", "nosuid", "noexec"]);
    let in_pod = |bundle: Bundle| bundle.set("/mounts/3", shared.clone());
    let first = with(in_pod(host.bundle()), &[(&data, "/data", &["rbind"])]);
    let first = host.create("first", &first.sh(&format!("{meet} wait")));
    first.start();
    until("all are ready", DEADLINE, || (first.stdout().matches("ready").count() == 4).then_some(()));

    let second = with(
        in_pod(sharing(&host, &first, &["network", "ipc"])),
        &[
            (&data, "/other", &["bind"]),
            (&data.join("sub/deep"), "/deep", &["bind"]),
            (&bound.0, "/bound", &["rbind", "rprivate"]),
            (&data.join("file"), "/file", &["bind", "ro"]),
        ],
    );
    let second = running(&host, "second", &second.args(["probe", "linger"]));
    for place in ["/other", "/deep", "/bound", "/dev/shm"] {
        assert_eq!(seen(&second, &["probe", "visit", place]), ALL, "{place}");
    }
    let numbers = |container, path| seen(container, &["busybox", "stat", "-c", "%d:%i", path]);
    assert_eq!(numbers(&first, "/data/file"), numbers(&second, "/file"));
    second.exec(["touch", "/file"]).failure(1, &["Read-only file system"]);
    // It is the guest's own memory, of the size and mode that the host has for it.
    let table = seen(&second, &["cat", "/proc/self/mounts"]);
    let line = table.lines().find(|line| line.contains(" /dev/shm ")).unwrap();
    assert!(line.contains(" tmpfs ") && line.contains("size=1024k") && line.contains("noexec"), "{line}");
    assert_eq!(fs::read_dir(&shm.0).unwrap().count(), 0);
    // Behind a socket of the host is nobody of the guest's.
    let listener = UnixListener::bind(data.join("host/socket")).unwrap();
    assert!(seen(&second, &["probe", "visit", "/other/host"]).ends_with(", ECONNREFUSED\n"));
    drop(listener);

    // What one leaves, the other has.
    let shared = volumes_of(&host);
    assert_eq!(shared.len(), 1, "{shared:?}");
    second.delete_force();
    assert_eq!(seen(&first, &["/bin/sh", "-c", "echo here > /data/after; cat /data/after"]), "here\n");
    assert_eq!(volumes_of(&host), shared);
    first.delete_force();
    drop((bound, shm));
    host.assert_no_trace();
}

#[test]
fn mounts_below_a_volume_are_there_at_once_with_attributes_of_their_own() {
    let host = TestHost::new();
    let data = host.dir().join("data");
    let sub = Mounted::tmpfs(data.join("sub"), "mode=755");
    let deep = Mounted::tmpfs(sub.0.join("deep"), "mode=755");
    let fixed = Mounted::tmpfs(data.join("fixed"), "mode=755");
    fixed.remount(MsFlags::MS_RDONLY | MsFlags::MS_NOEXEC);
    fs::write(data.join("file"), "of the host\n").unwrap();
    let place = Mounted::on_file(&data.join("file"), data.join("place"));
    let null = Mounted::on_file(Path::new("/dev/null"), data.join("null"));
    let bundle = with(
        host.bundle(),
        &[
            (&data, "/ro", &["rbind", "ro"]),
            (&data, "/rro", &["rbind", "rro"]),
            (&data, "/slow", &["rbind", "rnoatime"]),
            (&data, "/alone", &["bind"]),
        ],
    );
    let bundle = bundle.sh("cat /proc/self/mountinfo /ro/place
        for place in ro ro/sub ro/sub/deep ro/fixed rro/sub/deep slow/fixed slow/sub alone/sub; do
            if touch /$place/new; then echo wrote $place; fi
        done");
    let finished = host.run(&bundle);
    let text = finished.text();
    let wrote: Vec<_> = text.lines().filter_map(|line| line.strip_prefix("wrote ")).collect();
    assert_eq!(wrote, ["ro/sub", "ro/sub/deep", "slow/sub", "alone/sub"], "{}", finished.errors());
    let options = |path: &str| -> Vec<&str> {
        let line = text.lines().find(|line| line.split(' ').nth(4) == Some(path));
        line.map_or_else(Vec::new, |line| line.split(' ').nth(5).unwrap().split(',').collect())
    };
    for (path, wanted) in [
        ("/ro", "ro"),
        ("/ro/sub", "rw"),
        ("/ro/sub/deep", "rw"),
        ("/ro/fixed", "noexec"),
        ("/ro/fixed", "ro"),
        ("/ro/place", "rw"),
        ("/rro/sub/deep", "ro"),
        ("/slow/sub", "noatime"),
        ("/slow/sub/deep", "noatime"),
        ("/alone", "rw"),
    ] {
        assert!(options(path).contains(&wanted), "{path} {wanted}: {:?}\n{text}", options(path));
    }
    assert!(options("/alone/sub").is_empty(), "{text}");
    assert!(text.contains("of the host\n"), "{text}");
    let warning = "data/null is left out: it is neither a directory nor a regular file";
    assert!(finished.errors().contains(warning), "{}", finished.errors());
    assert_eq!([sub.0.join("new").exists(), deep.0.join("new").exists()], [true, true]);
    // The directory that the host has below its mount.
    drop((deep, place, null));
    drop(sub);
    assert!(data.join("sub/new").exists());
}

#[test]
fn what_a_container_of_a_pod_asks_for_does_not_change_what_another_has() {
    let host = TestHost::new();
    let work = host.dir().join("work");
    let data = work.join("data");
    fs::create_dir_all(data.join("sub")).unwrap();
    fs::write(data.join("file"), "").unwrap();
    fs::write(data.join("sub/which"), "old\n").unwrap();
    let file = data.join("file");
    let linger = ["probe", "linger"];
    let first = with(host.bundle(), &[(&data, "/data", &["rbind", "ro"])]);
    let first = running(&host, "first", &first.args(linger));
    let beside = |name: &str, mounts: &[(&Path, &str, &[&str])]| {
        running(&host, name, &with(sharing(&host, &first, &["network"]), mounts).args(linger))
    };
    let denied = |path: &str| {
        first.exec(["touch", path]).failure(1, &["Read-only file system"]);
    };

    // To write to a file is not to write to all that is beside it.
    let second = beside("second", &[(&file, "/file", &["bind"])]);
    let apart = "are apart in this pod";
    assert!(second.stderr().contains(apart), "{}", second.stderr());
    seen(&second, &["/bin/sh", "-c", "echo written > /file"]);
    denied("/data/file");
    until("the file is seen", DEADLINE, || {
        (seen(&first, &["cat", "/data/file"]) == "written\n").then_some(())
    });
    assert_eq!(volumes_of(&host), ["@0", "@1"]);
    second.delete_force();
    assert_eq!(volumes_of(&host), ["@0"]);

    // The same source to write: one filesystem, and each container has it as it asked.
    let third = beside("third", &[(&data, "/data", &["bind"])]);
    assert!(!third.stderr().contains(apart), "{}", third.stderr());
    let inode = seen(&third, &["/bin/sh", "-c", "echo third > /data/new; busybox stat -c %d:%i /data/new"]);
    assert_eq!(seen(&first, &["busybox", "stat", "-c", "%d:%i", "/data/new"]), inode);
    denied("/data/new");
    // A file in it, read-only, and what is around it.
    let fourth = beside("fourth", &[(&file, "/file", &["bind", "ro"]), (&work, "/work", &["bind"])]);
    assert!(fourth.stderr().contains(apart), "{}", fourth.stderr());
    fourth.exec(["touch", "/file"]).failure(1, &["Read-only file system"]);
    seen(&fourth, &["touch", "/work/data/wide"]);
    assert_eq!(volumes_of(&host), ["@0", "@2"]);
    third.delete_force();
    fourth.delete_force();

    // Another directory has taken the name.
    fs::rename(&data, work.join("old")).unwrap();
    fs::create_dir_all(data.join("sub")).unwrap();
    fs::write(data.join("sub/which"), "new\n").unwrap();
    let fifth = beside("fifth", &[(&data.join("sub"), "/sub", &["bind", "ro"]), (&data, "/data", &["bind"])]);
    assert_eq!(seen(&fifth, &["cat", "/sub/which", "/data/sub/which"]), "new\nnew\n");
    assert_eq!(seen(&first, &["cat", "/data/sub/which"]), "old\n");
    fifth.delete_force();

    // A creation that fails leaves what others have, and nothing of its own.
    let failing = with(sharing(&host, &first, &["network"]), &[(&data, "/data", &["bind"])]);
    host.run(&failing.args(["no-such-program"])).failure(1, &["no-such-program"]);
    let many: Vec<_> =
        (0..257).map(|number| Mounted::tmpfs(data.join(number.to_string()), "size=4k")).collect();
    let failing = with(sharing(&host, &first, &["network"]), &[(&data, "/data", &["rbind"])]);
    host.run(&failing).failure(1, &["data: 257 mounts below the sources of the container are more than 256"]);
    drop(many);
    assert_eq!(volumes_of(&host), ["@0"]);
    assert_eq!(seen(&first, &["cat", "/data/sub/which"]), "old\n");
    first.delete_force();
    host.assert_no_trace();
}
