//! Files of the host as programs use them together: locks, ACLs, files without a name, overlays.

use std::{
    fs,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::Path,
    process::{Child, Command, Stdio},
};

use bulkhead_tests::{
    host::{Container, DEADLINE, Finished, TestHost, finish, probe, process, until},
    probe::files::{acl, set_acl},
};
use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use rustix::fs::{XattrFlags, getxattr, setxattr};
use serde_json::json;

use crate::{
    mounts::{Disk, ids, volume},
    pod::running,
};

const KINDS: [&str; 2] = ["flock", "posix"];

/// A directory that all may write to.
fn open_to_all(path: &Path) {
    fs::create_dir(path).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o777)).unwrap();
}

fn try_inside(container: &Container<'_>, kind: &str, path: &str) -> String {
    container.exec(["probe", "lock", kind, path]).success()
}

fn on_host(words: &[&str]) -> String {
    finish(Command::new(probe()).args(words), b"", DEADLINE).success()
}

/// A process of the host that holds a lock until it is dropped.
struct Holder(Child);

impl Holder {
    fn of(kind: &str, path: &Path) -> Self {
        let mut child =
            Command::new(probe()).args(["hold-lock", kind]).arg(path).stdout(Stdio::piped()).spawn().unwrap();
        let mut word = String::new();
        let mut stdout = std::io::BufReader::new(child.stdout.take().unwrap());
        std::io::BufRead::read_line(&mut stdout, &mut word).unwrap();
        assert_eq!(word, "ok\n");
        Self(child)
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Waits until somebody waits for a lock on the file, as the host's kernel says: "1: -> FLOCK  ADVISORY  WRITE 12 08:01:34 0 EOF".
fn until_waited_for(path: &Path) {
    let inode = format!(":{} ", fs::metadata(path).unwrap().ino());
    until(&format!("somebody waits for a lock on {}", path.display()), DEADLINE, || {
        let locks = fs::read_to_string("/proc/locks").unwrap();
        locks.lines().any(|line| line.contains(" -> ") && line.contains(&inode)).then_some(())
    });
}

#[test]
fn two_microvms_and_the_host_agree_about_locks_and_one_that_dies_frees_its_own() {
    let host = TestHost::new();
    let data = host.dir().join("data");
    open_to_all(&data);
    let bundle = || host.bundle().push("/mounts", volume(&data, "/data", &["rbind"]));
    let holding = "probe hold-lock flock /data/flock & probe hold-lock posix /data/posix & wait";
    let first = host.create("first", &bundle().sh(holding));
    first.start();
    until("both locks are held", DEADLINE, || (first.stdout() == "ok\nok\n").then_some(()));
    let second = running(
        &host,
        "second",
        &bundle()
            .sh("echo ready; probe wait-lock posix /data/posix & exec probe wait-lock flock /data/flock"),
    );
    for kind in KINDS {
        let path = format!("/data/{kind}");
        assert_eq!(try_inside(&first, kind, &path), "EAGAIN\n", "{kind}: another process of the container");
        assert_eq!(try_inside(&second, kind, &path), "EAGAIN\n", "{kind}: another microVM");
        let on_disk = data.join(kind);
        assert_eq!(on_host(&["lock", kind, on_disk.to_str().unwrap()]), "EAGAIN\n", "{kind}: the host");
        let own = data.join(format!("host-{kind}"));
        let held = Holder::of(kind, &own);
        assert_eq!(try_inside(&second, kind, &format!("/data/host-{kind}")), "EAGAIN\n");
        drop(held);
        assert_eq!(try_inside(&second, kind, &format!("/data/host-{kind}")), "ok\n");
        assert_eq!(on_host(&["lock", kind, own.to_str().unwrap()]), "ok\n", "{kind}: a process has ended");
    }

    // A signal reaches who waits, with a handler or without.
    until_waited_for(&data.join("flock"));
    second.kill("USR1");
    second.until_stdout("EINTR");
    let killed =
        second.exec(["busybox", "timeout", "-s", "KILL", "2", "probe", "wait-lock", "posix", "/data/posix"]);
    assert_eq!(killed.code(), 137, "{killed:?}");

    // The locks of a microVM that is killed are free at once, and who waits gets them.
    until_waited_for(&data.join("flock"));
    until_waited_for(&data.join("posix"));
    let vmm = process("bulkhead-vmm", &[], &first.id).unwrap();
    kill(Pid::from_raw(vmm.cast_signed()), Signal::SIGKILL).unwrap();
    second.until_stdout("ok\nok\n");
    for kind in KINDS {
        assert_eq!(on_host(&["lock", kind, data.join(kind).to_str().unwrap()]), "EAGAIN\n", "{kind}");
    }
    second.delete_force();
    for kind in KINDS {
        assert_eq!(on_host(&["lock", kind, data.join(kind).to_str().unwrap()]), "ok\n", "{kind}");
    }
}

/// As a user and group of this number.
fn exec_as(host: &TestHost, container: &Container<'_>, user: u32, script: &str) -> Finished {
    let user = format!("--user={user}:{user}");
    let mut exec = host.bulkhead(["exec", &user, &container.id, "sh", "-c", script]);
    finish(&mut exec, b"", DEADLINE)
}

#[test]
fn a_file_needs_no_name_wherever_it_is() {
    let host = TestHost::new();
    let disk = Disk::at(host.dir());
    let (data, bare) = (disk.0.join("data"), host.dir().join("bare"));
    for path in [&data, &bare] {
        open_to_all(path);
    }
    mount(Some("none"), &bare, Some("ramfs"), MsFlags::empty(), None::<&str>).unwrap();
    let bundle = host
        .bundle()
        .own_rootfs()
        .push("/mounts", volume(&data, "/data", &["rbind"]))
        .push("/mounts", volume(&bare, "/bare", &["rbind"]))
        .args(["probe", "linger"]);
    let container = running(&host, "unnamed", &bundle);
    for directory in ["/data", "/bare", "/root", "/dev/shm"] {
        let made = container.exec(["probe", "unnamed", directory]).success();
        assert_eq!(made, "ok\n", "a file without a name in {directory}");
    }
    assert_eq!(fs::read(data.join("linked")).unwrap(), b"hello");
    container.delete_force();
    umount2(&bare, MntFlags::MNT_DETACH).unwrap();
}

#[test]
fn acls_hold_inside_as_on_the_host_also_with_an_id_map() {
    let host = TestHost::new();
    let disk = Disk::at(host.dir());
    let (data, mapped, bare) = (disk.0.join("data"), disk.0.join("mapped"), host.dir().join("bare"));
    for path in [&data, &mapped, &bare] {
        open_to_all(path);
    }
    // It has no extended attributes at all.
    mount(Some("none"), &bare, Some("ramfs"), MsFlags::empty(), None::<&str>).unwrap();
    for (directory, user) in [(&data, 1000), (&mapped, 5)] {
        fs::write(directory.join("file"), "secret\n").unwrap();
        set_acl(directory.join("file"), user).unwrap();
        fs::write(directory.join("own"), "").unwrap();
    }
    fs::write(bare.join("file"), "").unwrap();
    fs::create_dir(data.join("shared")).unwrap();
    setxattr(data.join("shared"), "system.posix_acl_default", &acl(1000), XattrFlags::empty()).unwrap();
    let mut with_map = volume(&mapped, "/mapped", &["rbind"]);
    with_map["uidMappings"] = ids(0, 1000);
    with_map["gidMappings"] = ids(0, 1000);
    let bundle = host
        .bundle()
        .own_rootfs()
        .push("/mounts", volume(&data, "/data", &["rbind"]))
        .push("/mounts", with_map)
        .push("/mounts", volume(&bare, "/bare", &["rbind"]))
        .args(["probe", "linger"]);
    let container = running(&host, "files", &bundle);

    // The id map shows the disk's user 5 as 1005.
    for (user, path, may) in [
        (1000, "/data/file", true),
        (1001, "/data/file", false),
        (1005, "/mapped/file", true),
        (5, "/mapped/file", false),
    ] {
        let read = exec_as(&host, &container, user, &format!("cat {path}"));
        assert_eq!(read.text() == "secret\n", may, "user {user} and {path}: {read:?}");
    }
    // The owner of the file below the id map is 1000 inside, and there is no CAP_FOWNER here.
    for (user, path, named, on_disk) in
        [(0, "/data/own", 1000, data.join("own")), (1000, "/mapped/own", 1005, mapped.join("own"))]
    {
        let set = exec_as(&host, &container, user, &format!("probe acl {path} {named}"));
        assert_eq!(set.success(), "ok\n", "{path}");
        let mut seen = [0; 100];
        let length = getxattr(&on_disk, "system.posix_acl_access", &mut seen).unwrap();
        let wanted = if named == 1000 { 1000 } else { 5 };
        assert_eq!(seen[..length], acl(wanted), "{path}");
    }
    assert_eq!(container.exec(["probe", "acl", "/bare/file", "1000"]).success(), "EOPNOTSUPP\n");

    // A default ACL beats the umask, and elsewhere the umask holds.
    container.exec(["sh", "-c", "umask 077; echo > /data/shared/new; echo > /data/plain"]).success();
    let mode = |path: &str| fs::metadata(data.join(path)).unwrap().mode() & 0o777;
    assert_eq!((mode("shared/new"), mode("plain")), (0o660, 0o600));
    container.delete_force();
    umount2(&bare, MntFlags::MNT_DETACH).unwrap();
}

/// What a builder of images does in a container.
#[test]
fn an_overlay_has_its_upper_directory_on_a_volume() {
    let host = TestHost::new();
    let disk = Disk::at(host.dir());
    for name in ["lower", "upper", "work"] {
        fs::create_dir(disk.0.join(name)).unwrap();
    }
    fs::write(disk.0.join("lower/file"), "below\n").unwrap();
    fs::write(disk.0.join("lower/gone"), "").unwrap();
    let mut bundle = host.bundle().push("/mounts", volume(&disk.0, "/disk", &["rbind"])).sh(
        "mkdir /tmp/merged && cd /disk &&
        mount -t overlay -o userxattr,lowerdir=lower,upperdir=upper,workdir=work overlay /tmp/merged &&
        cat /tmp/merged/file && echo above > /tmp/merged/file && busybox rm /tmp/merged/gone && ls /tmp/merged",
    );
    for set in ["bounding", "effective", "permitted"] {
        bundle = bundle.push(&format!("/process/capabilities/{set}"), json!("CAP_SYS_ADMIN"));
        bundle = bundle.push(&format!("/process/capabilities/{set}"), json!("CAP_DAC_OVERRIDE"));
    }
    assert_eq!(host.run(&bundle.own_rootfs()).success(), "below\nfile\n");
    assert_eq!(fs::read_to_string(disk.0.join("upper/file")).unwrap(), "above\n");
    assert_eq!(fs::read_to_string(disk.0.join("lower/file")).unwrap(), "below\n");
    // A whiteout.
    assert_eq!(fs::symlink_metadata(disk.0.join("upper/gone")).unwrap().rdev(), 0);
}
