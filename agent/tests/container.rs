//! Containers made by `container-init` on this machine, looked at from inside: the place they live in.

#[cfg(test)]
mod support;

use std::{fs, os::unix::fs::symlink};

use bulkhead_protocol::container::{ContainerSpec, DeviceKind, DeviceNode, MountSource, NamespaceKind};
use support::{End, bind, filesystem, host, mount, spec, user_namespace};

/// MOUNT_ATTR_RDONLY, NOSUID, NODEV, NOEXEC of linux/mount.h.
const READ_ONLY: u64 = 1;
const NO_SUID: u64 = 2;

#[tokio::test]
async fn a_program_runs_as_pid_1_with_its_streams_and_its_exit_code() {
    let Some(host) = host() else { return };
    let outcome = host.run(&spec(&["sh", "-c", "echo $$; echo err >&2; exit 42"])).await.unwrap();
    assert_eq!(outcome.end, End::Code(42), "{outcome:?}");
    assert_eq!((outcome.stdout.as_str(), outcome.stderr.as_str()), ("1\n", "err\n"));
    host.assert_clean();
}

#[tokio::test]
async fn the_rootfs_is_the_root_and_nothing_of_the_outside_is_left() {
    let Some(host) = host() else { return };
    let out =
        host.shell(|_| {}, "ls /; ls /../..; cat /proc/self/mountinfo; ls /proc | grep '^[0-9]' ").await;
    assert_eq!(out.matches("rootfs\n").count(), 0, "{out}");
    assert!(!out.contains("/home") && !out.contains("staging"), "{out}");
    let mounts = out.lines().filter(|line| line.contains(" - ")).count();
    // The rootfs, six mounts, one or two masks and two read-only paths.
    assert!((9..=12).contains(&mounts), "{out}");
}

#[tokio::test]
async fn dev_has_the_usual_devices_and_links() {
    let Some(host) = host() else { return };
    let script = "for d in null zero full random urandom tty; do stat -c '%n %t:%T %a %F' /dev/$d; done
        for l in fd stdin stdout stderr ptmx core; do readlink /dev/$l; done; echo x > /dev/null; head -c 3 /dev/zero; test -c /dev/ptmx";
    let out = host.shell(|_| {}, script).await;
    assert_eq!(
        out,
        "/dev/null 1:3 666 character special file\n/dev/zero 1:5 666 character special file\n\
         /dev/full 1:7 666 character special file\n/dev/random 1:8 666 character special file\n\
         /dev/urandom 1:9 666 character special file\n/dev/tty 5:0 666 character special file\n\
         /proc/self/fd\n/proc/self/fd/0\n/proc/self/fd/1\n/proc/self/fd/2\npts/ptmx\n/proc/kcore\n\0\0\0"
    );
}

#[tokio::test]
async fn masked_paths_are_empty_and_read_only_ones_refuse_writes() {
    let Some(host) = host() else { return };
    let script =
        "stat -c %t:%T /proc/stat /proc/meminfo; ls /sys/firmware | grep -c .; touch /sys/firmware/x 2>&1;
        echo 1 2>&1 > /proc/sys/kernel/shmmni; ls -d /proc/absent 2>&1; true";
    let change = |spec: &mut ContainerSpec| {
        spec.masked_paths.extend(["/proc/stat".into(), "/proc/meminfo".into()]);
    };
    let out = host.shell(change, script).await;
    assert!(out.starts_with("1:3\n1:3\n0\n"), "{out}");
    assert_eq!(out.matches("Read-only file system").count(), 2, "{out}");
}

#[tokio::test]
async fn names_network_and_ipc_are_the_containers_own() {
    let Some(host) = host() else { return };
    let change = |spec: &mut ContainerSpec| {
        spec.sysctl.insert("net.ipv4.ip_forward".into(), "1".into());
        spec.sysctl.insert("kernel.shmmni".into(), "77".into());
        spec.domainname = Some("example".into());
    };
    let script =
        "hostname; cat /proc/sys/kernel/domainname /proc/sys/net/ipv4/ip_forward /proc/sys/kernel/shmmni;
        cat /sys/class/net/lo/flags; ls /sys/class/net";
    let out = host.shell(change, script).await;
    // IFF_UP | IFF_LOOPBACK.
    let (own, interfaces) = out.split_once("0x9\n").unwrap();
    assert_eq!(own, "web\nexample\n1\n77\n");
    assert!(!interfaces.contains("eth"), "{interfaces}");
}

#[tokio::test]
async fn the_cgroup_namespace_starts_at_the_containers_cgroup() {
    let Some(host) = host() else { return };
    let out = host.shell(|_| {}, "grep ^0:: /proc/self/cgroup").await;
    assert_eq!(out, "0::/\n");
}

#[tokio::test]
async fn the_cgroup_mount_shows_the_own_cgroup_with_and_without_a_namespace() {
    let Some(host) = host() else { return };
    for own in [true, false] {
        let change = |spec: &mut ContainerSpec| {
            if !own {
                spec.namespaces.retain(|namespace| namespace.kind != NamespaceKind::Cgroup);
            }
            let mut cgroup = mount("/sys/fs/cgroup", MountSource::Cgroup);
            cgroup.super_flags = vec!["ro".into()];
            spec.mounts.push(cgroup);
        };
        let out =
            host.shell(change, "cat /sys/fs/cgroup/cgroup.procs; mkdir /sys/fs/cgroup/x 2>&1; true").await;
        assert!(out.starts_with("1\n"), "{own}: {out}");
        assert!(out.contains("Read-only"), "{own}: {out}");
    }
}

#[tokio::test]
async fn binds_bring_directories_and_files_in_order_with_their_attributes() {
    let Some(host) = host() else { return };
    fs::create_dir_all(host.share().join("c/data/sub")).unwrap();
    fs::write(host.share().join("c/data/file"), "data").unwrap();
    fs::write(host.share().join("c/hosts"), "127.0.0.1").unwrap();
    let change = |spec: &mut ContainerSpec| {
        let mut data = bind("/new/data", "c/data");
        data.set = READ_ONLY | NO_SUID;
        spec.mounts.push(data);
        spec.mounts.push(bind("/etc/hosts", "c/hosts"));
        spec.mounts.push(filesystem("/new/data/sub", "tmpfs", &[]));
    };
    let script =
        "cat /new/data/file /etc/hosts; touch /new/data/x 2>&1; touch /new/data/sub/y && echo w > /etc/hosts;
        grep ' /new/data ' /proc/self/mountinfo";
    let out = host.shell(change, script).await;
    assert!(out.starts_with("data127.0.0.1touch: /new/data/x: Read-only file system\n"), "{out}");
    assert!(out.contains("ro,nosuid"), "{out}");
    assert_eq!(fs::read(host.share().join("c/hosts")).unwrap(), b"w\n");
}

#[tokio::test]
async fn a_link_in_the_image_cannot_send_a_mount_outside() {
    let Some(host) = host() else { return };
    let outside = tempfile::TempDir::new().unwrap();
    fs::create_dir(host.share().join("c/data")).unwrap();
    symlink(outside.path(), host.rootfs().join("link")).unwrap();
    let target = outside.path().display().to_string();
    let made = host.rootfs().join(target.trim_start_matches('/'));
    fs::create_dir_all(&made).unwrap();
    let change = |spec: &mut ContainerSpec| spec.mounts.push(bind("/link/mnt", "c/data"));
    host.shell(change, "touch /link/mnt/written").await;
    assert!(host.share().join("c/data/written").exists());
    assert!(fs::read_dir(outside.path()).unwrap().next().is_none());
}

#[tokio::test]
async fn a_mount_on_a_link_to_nothing_makes_what_it_names() {
    let Some(host) = host() else { return };
    fs::write(host.share().join("c/file"), "bound\n").unwrap();
    let nowhere = host.share().join("nowhere");
    symlink(&nowhere, host.rootfs().join("etc/localtime")).unwrap();
    symlink("../run/x", host.rootfs().join("tmp/link")).unwrap();
    let change = |spec: &mut ContainerSpec| {
        spec.mounts.push(bind("//etc/./localtime", "c/file"));
        spec.mounts.push(filesystem("/tmp/link/", "tmpfs", &[]));
        spec.process.cwd = "/tmp/link/below".into();
    };
    let out = host.shell(change, "cat /etc/localtime; pwd").await;
    assert_eq!(out, "bound\n/run/x/below\n");
    assert!(!nowhere.exists());
}

#[tokio::test]
async fn a_source_that_is_a_link_is_refused() {
    let Some(host) = host() else { return };
    symlink("/etc", host.share().join("c/evil")).unwrap();
    let mut spec = spec(&["sh"]);
    spec.mounts.push(bind("/evil", "c/evil/passwd"));
    let error = host.create(&spec).await.unwrap_err();
    assert_eq!(error.chain(), "open in volume evil/passwd: too many levels of symbolic links");
    host.assert_clean();
}

#[tokio::test]
async fn proc_behind_a_link_is_refused() {
    let Some(host) = host() else { return };
    fs::remove_dir(host.rootfs().join("proc")).unwrap();
    symlink("tmp", host.rootfs().join("proc")).unwrap();
    let error = host.create(&spec(&["sh"])).await.unwrap_err();
    assert_eq!(error.chain(), "check mount point /proc: not an ordinary directory");
    host.assert_clean();
}

#[tokio::test]
async fn a_bind_over_a_file_of_proc_is_refused_but_for_those_of_lxcfs() {
    let Some(host) = host() else { return };
    fs::write(host.share().join("c/file"), "fake").unwrap();
    let mut evil = spec(&["sh"]);
    evil.mounts.push(bind("/proc/self/attr/exec", "c/file"));
    let error = host.create(&evil).await.unwrap_err();
    assert!(error.chain().contains("bind mount inside proc"), "{error:?}");
    let change = |spec: &mut ContainerSpec| spec.mounts.push(bind("/proc/meminfo", "c/file"));
    assert_eq!(host.shell(change, "cat /proc/meminfo").await, "fake");
}

#[tokio::test]
async fn an_option_that_a_filesystem_refuses_is_told_with_the_kernels_words() {
    let Some(host) = host() else { return };
    let mut spec = spec(&["sh"]);
    spec.mounts.push(filesystem("/x", "tmpfs", &["size=lots"]));
    let error = host.create(&spec).await.unwrap_err().chain();
    assert!(error.starts_with("mount tmpfs on /x: invalid argument"), "{error}");
    assert!(error.contains("size"), "{error}");
    host.assert_clean();
}

#[tokio::test]
async fn a_read_only_rootfs_and_a_read_only_tmpfs_refuse_writes() {
    let Some(host) = host() else { return };
    let change = |spec: &mut ContainerSpec| {
        spec.rootfs.readonly = true;
        let mut run = filesystem("/run", "tmpfs", &[]);
        run.set = READ_ONLY;
        spec.mounts.push(run);
        spec.mounts.push(filesystem("/run/rw", "tmpfs", &[]));
    };
    let out = host.shell(change, "touch /x /run/x 2>&1; touch /run/rw/x && echo ok").await;
    assert_eq!(out.matches("Read-only file system").count(), 2, "{out}");
    assert!(out.ends_with("ok\n"), "{out}");
}

#[tokio::test]
async fn a_device_that_no_rule_allows_cannot_be_opened() {
    let Some(host) = host() else { return };
    // 1:1 is /dev/mem, 1:3 the null device. The rootfs may lie on a filesystem without devices.
    let script = "exec 2>&1; mknod /run/mem c 1 1 && mknod /run/null c 1 3 && echo x > /run/null && head -c 1 /run/mem; true";
    let out = host.shell(|spec| spec.mounts.push(filesystem("/run", "tmpfs", &[])), script).await;
    assert!(out.contains("Operation not permitted"), "{out}");
}

#[tokio::test]
async fn a_user_namespace_maps_ids_and_binds_devices() {
    let Some(host) = host() else { return };
    std::os::unix::fs::chown(host.rootfs(), Some(100_000), Some(100_000)).unwrap();
    for directory in ["proc", "sys", "dev", "tmp"] {
        std::os::unix::fs::chown(host.rootfs().join(directory), Some(100_000), Some(100_000)).unwrap();
    }
    // Only root outside may pass here: sources are opened before the ids change.
    let private = host.share().join("c/private");
    fs::create_dir(&private).unwrap();
    fs::write(private.join("file"), "kept").unwrap();
    fs::set_permissions(&private, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
    let change = |spec: &mut ContainerSpec| {
        user_namespace(spec);
        spec.mounts.push(bind("/tmp/file", "c/private/file"));
        // The default one's second name.
        spec.devices.push(DeviceNode {
            path: "/dev/nothing".to_owned(),
            kind: DeviceKind::Char,
            major: 1,
            minor: 3,
            by_name: false,
            disk: None,
            mode: 0o666,
            uid: 0,
            gid: 0,
        });
    };
    let script = "id -u; cat /proc/self/uid_map; stat -c '%t:%T %u' /dev/null /dev/nothing; echo x > /dev/nothing; echo x > /dev/null; cat /tmp/file; touch /tmp/new; stat -c %u /tmp/new";
    let out = host.shell(change, script).await;
    let words: Vec<_> = out.split_whitespace().collect();
    assert_eq!(words, ["0", "0", "100000", "65536", "1:3", "65534", "1:3", "65534", "kept0"], "{out}");
    let made = fs::metadata(host.rootfs().join("tmp/new")).unwrap();
    assert_eq!(std::os::unix::fs::MetadataExt::uid(&made), 100_000);
}

#[tokio::test]
async fn a_user_namespace_sees_its_cgroup_the_sandboxs_network_and_has_a_terminal() {
    let Some(host) = host() else { return };
    let mut spec =
        spec(&["sh", "-c", "ls /sys/class/net; cat /sys/fs/cgroup/cgroup.procs; tty; echo > /dev/console"]);
    user_namespace(&mut spec);
    spec.namespaces.retain(|namespace| namespace.kind != NamespaceKind::Network);
    spec.mounts.push(mount("/sys/fs/cgroup", MountSource::Cgroup));
    spec.process.terminal = true;
    let (created, _streams) = host.create(&spec).await.unwrap();
    created.gate.release().await.unwrap();
    let mut seen = Vec::new();
    // The other end of a pty reads as an I/O error once the last slave is closed.
    let _ = std::io::copy(&mut fs::File::from(created.pty_master.unwrap()), &mut seen);
    assert_eq!(support::wait(created.pid), End::Code(0));
    let seen = String::from_utf8(seen).unwrap();
    let words: Vec<_> = seen.split_whitespace().collect();
    assert!(["lo", "1", "/dev/pts/0"].iter().all(|word| words.contains(word)), "{seen}");
    support::remove(&created.cgroup);
}

#[tokio::test]
async fn the_root_cannot_be_covered_by_a_mount() {
    let Some(host) = host() else { return };
    for destination in ["/", "/tmp/../.."] {
        let mut spec = spec(&["sh"]);
        spec.mounts.push(filesystem(destination, "tmpfs", &[]));
        let error = host.create(&spec).await.unwrap_err().chain();
        assert_eq!(error, format!("make mount point {destination}: a mount cannot cover the rootfs itself"));
        host.assert_clean();
    }
}

#[tokio::test]
async fn a_tmpfs_takes_the_mode_of_its_place_and_the_content_when_asked() {
    let Some(host) = host() else { return };
    fs::create_dir(host.rootfs().join("tmp/sub")).unwrap();
    fs::write(host.rootfs().join("tmp/sub/file"), "image").unwrap();
    fs::set_permissions(host.rootfs().join("tmp"), std::os::unix::fs::PermissionsExt::from_mode(0o1770))
        .unwrap();
    let change = |spec: &mut ContainerSpec| {
        let mut tmp = filesystem("/tmp", "tmpfs", &["size=1m"]);
        tmp.copy_up = true;
        spec.mounts.push(tmp);
    };
    let out = host.shell(change, "stat -c %a /tmp; cat /tmp/sub/file; echo new > /tmp/sub/file").await;
    assert_eq!(out, "1770\nimage");
    assert_eq!(fs::read(host.rootfs().join("tmp/sub/file")).unwrap(), b"image");
}
