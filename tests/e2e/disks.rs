//! Disks of the host in a microVM: block devices as devices of a container, and filesystems that the guest mounts.

use std::{
    fs,
    io::Write as _,
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    process::Command,
};

use bulkhead_tests::host::{Bundle, DEADLINE, TestHost, finish};
use nix::errno::Errno;
use serde_json::{Value, json};

use crate::{
    mounts::{Disk, volume},
    pod::{running, seen, sharing},
};

fn done(command: &mut Command) -> String {
    finish(command, b"", DEADLINE).success()
}

/// A file of the size of a small disk, whose sectors begin with their number.
pub(crate) fn image(path: PathBuf) -> PathBuf {
    let mut file = fs::File::create(&path).unwrap();
    for number in 0..2048_u32 {
        let mut sector = [0_u8; 512];
        sector[..4].copy_from_slice(&number.to_be_bytes());
        file.write_all(&sector).unwrap();
    }
    path
}

/// The same with an ext4.
fn ext4(path: PathBuf) -> PathBuf {
    fs::File::create(&path).unwrap().set_len(8 << 20).unwrap();
    done(Command::new("mkfs.ext4").arg("-q").arg(&path));
    path
}

/// A loop device of the host.
pub(crate) struct Loop(pub(crate) PathBuf);

impl Loop {
    pub(crate) fn of(image: &Path) -> Self {
        // Where the kernel has loop devices built in, or loaded, there is no such module to load.
        let _ = Command::new("modprobe").arg("loop").status();
        let name = done(Command::new("losetup").args(["--find", "--show"]).arg(image));
        Self(name.trim().into())
    }

    fn node(&self, path: &str) -> Value {
        let number = fs::metadata(&self.0).unwrap().rdev();
        let (major, minor) = (rustix::fs::major(number), rustix::fs::minor(number));
        json!({ "path": path, "type": "b", "major": major, "minor": minor, "fileMode": 0o666, "uid": 7, "gid": 8 })
    }

    fn rule(&self, access: &str) -> Value {
        let mut rule = self.node("");
        rule["allow"] = json!(true);
        rule["access"] = json!(access);
        rule
    }

    /// Whether somebody has it for himself.
    pub(crate) fn is_taken(&self) -> bool {
        let opened = fs::File::options().read(true).custom_flags(nix::libc::O_EXCL).open(&self.0);
        match opened {
            Ok(_) => false,
            Err(error) if error.raw_os_error() == Some(Errno::EBUSY as i32) => true,
            Err(error) => panic!("{}: {error}", self.0.display()),
        }
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        let _ = Command::new("losetup").arg("--detach").arg(&self.0).status();
    }
}

fn with_device(bundle: Bundle, device: &Loop, path: &str, access: &str) -> Bundle {
    bundle
        .set("/linux/devices", json!([device.node(path)]))
        .set("/linux/resources/devices", json!([{ "allow": false, "access": "rwm" }, device.rule(access)]))
}

fn mount(kind: &str, source: &Path, destination: &str, options: &[&str]) -> Value {
    let mut mount = volume(source, destination, options);
    mount["type"] = json!(kind);
    mount
}

#[test]
fn a_pod_has_block_devices_and_filesystems_of_the_host_for_as_long_as_containers_use_them() {
    let host = TestHost::new();
    let (raw, read_only) = (image(host.dir().join("raw")), image(host.dir().join("read-only")));
    let (filesystem, file) = (ext4(host.dir().join("filesystem")), ext4(host.dir().join("file")));
    let (raw, read_only, filesystem) = (Loop::of(&raw), Loop::of(&read_only), Loop::of(&filesystem));

    // A device at the path that was asked for, which is the host's.
    let first = with_device(host.bundle().own_rootfs(), &raw, "/dev/deep/data", "rwm");
    let first = running(&host, "first", &first.args(["probe", "linger"]));
    assert!(raw.is_taken());
    assert_eq!(
        seen(&first, &["busybox", "stat", "-c", "%F %a %u:%g", "/dev/deep/data"]),
        "block special file 666 7:8\n"
    );
    assert_eq!(seen(&first, &["busybox", "blockdev", "--getsize64", "/dev/deep/data"]), "1048576\n");
    let script = "busybox dd if=/dev/deep/data bs=512 skip=2047 count=1 2>/dev/null | busybox od -An -tx1 -N4; \
                  busybox dd if=/dev/deep/data bs=512 skip=2048 count=1 2>/dev/null | busybox wc -c; \
                  echo from the guest | busybox dd of=/dev/deep/data bs=512 seek=3 conv=notrunc,fsync 2>/dev/null";
    let read = seen(&first, &["sh", "-c", script]);
    assert_eq!(read.split_whitespace().collect::<Vec<_>>(), ["00", "00", "07", "ff", "0"]);
    // It is on the host when the guest has flushed it.
    let written = fs::read(&raw.0).unwrap();
    assert!(written[3 * 512..].starts_with(b"from the guest\n") && written.len() == 1 << 20);

    // Another container brings its own: a device that it may only read, and filesystems on a device and in a file.
    let second = || {
        let bundle = sharing(&host, &first, &["network"]).own_rootfs();
        let bundle = with_device(bundle, &read_only, "/dev/ro", "r")
            .push("/mounts", mount("ext4", &filesystem.0, "/data", &["noatime"]))
            .push("/mounts", mount("ext4", &file, "/fixed", &["ro", "loop"]));
        running(&host, "second", &bundle.args(["probe", "linger"]))
    };
    for round in ["one", "two"] {
        let second = second();
        assert!(filesystem.is_taken());
        let script = format!(
            "busybox dd if=/dev/ro bs=512 skip=1 count=1 2>/dev/null | busybox od -An -tx1 -N4; \
             echo x > /dev/ro; echo x > /fixed/file; busybox ls /data; \
             echo {round} > /data/{round}; busybox grep -c ' /data ext4 rw,noatime' /proc/mounts; \
             for disk in /sys/block/vd*; do busybox cat $disk/ro; done"
        );
        let finished = second.exec(["sh", "-c", &script]);
        let kept = if round == "one" { "lost+found" } else { "lost+found one" };
        let words = finished.text().split_whitespace().collect::<Vec<_>>().join(" ");
        assert_eq!(words, format!("00 00 00 01 {kept} 1 0 1 0 1"), "{finished:?}");
        let errors = finished.errors();
        assert!(errors.contains("/dev/ro: Operation not permitted"), "{errors}");
        assert!(errors.contains("/fixed/file: Read-only file system"), "{errors}");
        // What the first one has, it has not: neither the node nor the right to make one that works.
        second.delete_force();
        assert!(raw.is_taken() && !filesystem.is_taken(), "{round}");
    }
    // Written by a guest that has unmounted it, and goes on.
    done(Command::new("e2fsck").arg("-fn").arg(&filesystem.0));

    // A disk that the host uses is refused, and so is one that the sandbox has otherwise.
    let mounted = Disk::at(host.dir());
    let refused = |kind, source: &Path, words: &[&str]| {
        let bundle = sharing(&host, &first, &["network"])
            .own_rootfs()
            .push("/mounts", mount(kind, source, "/data", &[]));
        let mut create = host.bulkhead(["create", "--bundle"]);
        finish(create.arg(bundle.write()).arg(host.id("refused")), b"", DEADLINE).failure(1, words);
    };
    let busy = done(Command::new("findmnt").args(["-no", "SOURCE"]).arg(&mounted.0));
    refused("ext4", Path::new(busy.trim()), &["it is in use, as by a mount of the host"]);
    refused("ext4", &raw.0, &["another container of the pod has it as a device"]);
    refused("erofs", &file, &["mount volume @disk7 with its erofs: invalid argument"]);

    drop(mounted);
    first.delete_force();
    assert!(!raw.is_taken());
    host.assert_no_trace();
}

#[test]
fn what_a_program_wrote_to_its_disk_is_there_when_its_microvm_has_ended() {
    let host = TestHost::new();
    let file = ext4(host.dir().join("file"));
    let bundle = host.bundle().own_rootfs().push("/mounts", mount("ext4", &file, "/data", &[]));
    host.run(&bundle.sh("busybox yes | busybox head -c 1000000 > /data/file; echo done")).success();
    // The guest has unmounted it: there is nothing to repair, and no journal to replay.
    done(Command::new("e2fsck").arg("-fn").arg(&file));
    let content = Command::new("debugfs").args(["-R", "cat /file"]).arg(&file).output().unwrap();
    assert_eq!(content.stdout.len(), 1_000_000);
}
