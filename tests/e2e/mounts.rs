//! Mounts and devices: what the spec asks for is what the container sees, and never more of the host than that.

use std::{
    fs,
    os::unix::fs::{MetadataExt, chown, symlink},
    path::{Path, PathBuf},
    process::Command,
};

use bulkhead_tests::host::TestHost;
use serde_json::{Value, json};

pub(crate) fn ids(container: u32, host: u32) -> Value {
    json!([{ "containerID": container, "hostID": host, "size": 65_536 }])
}

pub(crate) fn volume(source: &Path, destination: &str, options: &[&str]) -> Value {
    json!({ "destination": destination, "type": "bind", "source": source, "options": options })
}

#[test]
fn options_of_the_spec_are_seen_in_the_container() {
    let host = TestHost::new();
    let tmpfs =
        |path: &str, options: Value| json!({ "destination": path, "type": "tmpfs", "options": options });
    let bundle = host
        .bundle()
        .own_rootfs()
        .push("/mounts", tmpfs("/etc", json!(["tmpcopyup", "nosymfollow", "noatime", "sync"])))
        .push("/mounts", tmpfs("/shared", json!(["shared", "nodiratime", "lazytime"])))
        .push("/mounts", tmpfs("/tmp", json!(["mode=1777", "suid"])))
        .push("/mounts", tmpfs("/tmp", json!(["remount", "ro", "nosuid"])))
        .set("/linux/rootfsPropagation", json!("shared"))
        .sh("cat /proc/self/mountinfo /etc/passwd; ln -s passwd /etc/link; cat /etc/link; touch /tmp/x");
    let finished = host.run(&bundle);
    let text = finished.text();
    let fields = |path: &str| -> Vec<String> {
        let line = text.lines().rfind(|line| line.split(' ').nth(4) == Some(path));
        line.unwrap_or_else(|| panic!("no mount on {path}")).split(' ').map(str::to_owned).collect()
    };
    let has = |path: &str, wanted: &str| {
        let fields = fields(path);
        assert!(
            fields.iter().any(|field| field.split(',').any(|part| part == wanted)),
            "{wanted}: {fields:?}"
        );
    };
    for (path, wanted) in [
        ("/etc", "nosymfollow"),
        ("/etc", "noatime"),
        ("/etc", "sync"),
        ("/shared", "nodiratime"),
        ("/shared", "lazytime"),
        ("/tmp", "ro"),
        ("/tmp", "nosuid"),
    ] {
        has(path, wanted);
    }
    for path in ["/", "/shared"] {
        assert!(fields(path)[6].starts_with("shared:"), "{path}: {:?}", fields(path));
    }
    assert!(text.contains("tester:x:1000:1000"), "{text}");
    let errors = finished.errors();
    assert!(errors.contains("Too many levels of symbolic links"), "{errors}");
    assert!(errors.contains("Read-only file system"), "{errors}");
}

/// An ext4 of its own, which can map ids: the one of the test's directory may not.
pub(crate) struct Disk(pub(crate) PathBuf);

impl Disk {
    pub(crate) fn at(dir: &Path) -> Self {
        let (image, place) = (dir.join("disk.img"), dir.join("disk"));
        fs::File::create(&image).unwrap().set_len(8 << 20).unwrap();
        fs::create_dir(&place).unwrap();
        let done = |command: &mut Command| assert!(command.status().unwrap().success(), "{command:?}");
        done(Command::new("mkfs.ext4").arg("-q").arg(&image));
        // Where the kernel has loop devices built in, or loaded, there is no such module to load.
        let _ = Command::new("modprobe").arg("loop").status();
        done(Command::new("mount").args(["-o", "loop"]).arg(&image).arg(&place));
        Self(place)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // The loop device goes with its mount.
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

#[test]
fn an_id_map_shows_a_volume_and_a_tmpfs_under_other_owners() {
    let host = TestHost::new();
    let disk = Disk::at(host.dir());
    let data = disk.0.join("data");
    fs::create_dir(&data).unwrap();
    fs::write(data.join("file"), "").unwrap();
    chown(data.join("file"), Some(5), Some(6)).unwrap();
    let mut directory = volume(&data, "/data", &["rbind"]);
    let mut file = volume(&data.join("file"), "/file", &["bind"]);
    let mut tmpfs = json!({ "destination": "/scratch", "type": "tmpfs", "options": ["mode=755"] });
    for mount in [&mut directory, &mut file, &mut tmpfs] {
        mount["uidMappings"] = ids(0, 1000);
        mount["gidMappings"] = ids(0, 2000);
    }
    let bundle = host
        .bundle()
        .own_rootfs()
        .push("/mounts", directory)
        .push("/mounts", file)
        .push("/mounts", tmpfs)
        .set("/process/user", json!({ "uid": 1000, "gid": 2000 }))
        .sh("busybox stat -c %u:%g /data /data/file /file /scratch; echo > /data/new && echo > /scratch/new");
    let text = host.run(&bundle).success();
    assert_eq!(text, "1000:2000\n1005:2006\n1005:2006\n1000:2000\n");
    let new = data.join("new").metadata().unwrap();
    assert_eq!((new.uid(), new.gid()), (0, 0));
}

#[test]
fn devices_have_the_guests_numbers_and_the_owner_and_mode_of_the_spec() {
    let host = TestHost::new();
    let rule =
        |minor: u32| json!({ "allow": true, "type": "c", "major": 10, "minor": minor, "access": "rwm" });
    let bundle = host
        .bundle()
        .set(
            "/linux/devices",
            json!([
                { "path": "/dev/nothing", "type": "c", "major": 1, "minor": 3, "fileMode": 0o620, "uid": 7, "gid": 8 },
                { "path": "/dev/fuse", "type": "u", "major": 10, "minor": 229, "fileMode": 0o666 },
                { "path": "/dev/deep/pipe", "type": "p", "fileMode": 0o600 },
                // A number that the guest's misc devices do not have.
                { "path": "/dev/userfaultfd", "type": "c", "major": 10, "minor": 99, "fileMode": 0o600 }
            ]),
        )
        .set("/linux/resources", json!({ "devices": [{ "allow": false, "access": "rwm" }, rule(229), rule(99)] }))
        .sh("cd /dev; busybox stat -c '%n %F %a %u:%g %t:%T' nothing fuse deep/pipe userfaultfd; echo x > nothing
            : <> fuse && : <> userfaultfd && cat /proc/misc");
    let text = host.run(&bundle).success();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[0], "nothing character special file 620 7:8 1:3");
    assert_eq!(lines[1], "fuse character special file 666 0:0 a:e5");
    assert_eq!(lines[2], "deep/pipe fifo 600 0:0 0:0");
    let own = lines.iter().find_map(|line| line.trim().strip_suffix(" userfaultfd")).unwrap();
    assert_eq!(
        lines[3],
        format!("userfaultfd character special file 600 0:0 a:{:x}", own.parse::<u32>().unwrap())
    );
}

#[test]
fn something_else_in_the_place_of_a_device_or_of_proc_is_an_error() {
    let host = TestHost::new();
    let device = json!([{ "path": "/data/null", "type": "c", "major": 1, "minor": 3 }]);
    let bundle = host.bundle().own_rootfs().set("/linux/devices", device);
    fs::create_dir(bundle.dir().join("rootfs/data")).unwrap();
    fs::write(bundle.dir().join("rootfs/data/null"), "an ordinary file").unwrap();
    host.run(&bundle).failure(1, &["make device /data/null: something else is there"]);

    let bundle = host.bundle().own_rootfs();
    fs::remove_dir(bundle.dir().join("rootfs/proc")).unwrap();
    symlink("tmp", bundle.dir().join("rootfs/proc")).unwrap();
    host.run(&bundle).failure(1, &["check mount point /proc: not an ordinary directory"]);
}

#[test]
fn links_of_the_rootfs_and_of_a_volume_lead_to_no_file_of_the_host() {
    let host = TestHost::new();
    let secret = host.dir().join("secret");
    fs::create_dir(&secret).unwrap();
    fs::write(secret.join("key"), "of the host").unwrap();
    let data = host.dir().join("data");
    fs::create_dir(&data).unwrap();
    symlink(&secret, data.join("out")).unwrap();
    symlink(format!("../../../../../../../..{}", secret.display()), data.join("up")).unwrap();
    let bundle = host
        .bundle()
        .own_rootfs()
        .push("/mounts", volume(&data, "/link/../data", &["rbind"]))
        .push("/mounts", volume(&data, "/link/made", &["rbind"]))
        .push("/mounts", json!({ "destination": "/../../../up/tmpfs", "type": "tmpfs" }))
        .sh("cat /data/out/key /data/up/key /link/key; ls -d /link/made /up/tmpfs");
    // Inside the container the link leads to the same path below its own root.
    symlink(&secret, bundle.dir().join("rootfs/link")).unwrap();
    fs::create_dir_all(bundle.dir().join("rootfs").join(secret.strip_prefix("/").unwrap())).unwrap();
    let finished = host.run(&bundle);
    assert_eq!(finished.success(), "/link/made\n/up/tmpfs\n", "{}", finished.errors());
    assert_eq!(fs::read_dir(&secret).unwrap().count(), 1);
}

#[test]
fn a_mount_over_a_link_to_nothing_makes_what_it_names_inside_of_the_rootfs() {
    let host = TestHost::new();
    let (file, data) = (host.dir().join("zone"), host.dir().join("data"));
    fs::write(&file, "zone\n").unwrap();
    fs::create_dir(&data).unwrap();
    fs::write(data.join("file"), "of the volume\n").unwrap();
    let nowhere = host.dir().join("nowhere");
    for read_only in [false, true] {
        let bundle = host
            .bundle()
            .own_rootfs()
            .set("/root/readonly", json!(read_only))
            .set("/process/cwd", json!("/work/missing"))
            .push("/mounts", volume(&file, "/etc/localtime", &["bind", "ro"]))
            .push("/mounts", volume(&file, "/etc/resolv.conf", &["bind", "ro"]))
            .push("/mounts", volume(&data, "/var/run/app", &["rbind"]))
            .push("/mounts", volume(&data, "//srv//data/./x/", &["rbind"]))
            .push("/mounts", json!({ "destination": "/var/lock/.", "type": "tmpfs" }))
            .sh("cat /etc/localtime /etc/resolv.conf /var/run/app/file /srv/data/x/file; touch /var/lock/x; ls /lock; echo $PWD");
        let rootfs = bundle.dir().join("rootfs");
        fs::create_dir(rootfs.join("var")).unwrap();
        for (target, link) in [
            (nowhere.to_str().unwrap(), "etc/localtime"),
            ("../run/systemd/resolve/stub.conf", "etc/resolv.conf"),
            ("/run", "var/run"),
            ("../lock", "var/lock"),
        ] {
            symlink(target, rootfs.join(link)).unwrap();
        }
        let text = host.run(&bundle).success();
        assert_eq!(
            text, "zone\nzone\nof the volume\nof the volume\nx\n/work/missing\n",
            "read-only: {read_only}"
        );
        assert!(!nowhere.exists());
        assert!(rootfs.join("run/systemd/resolve/stub.conf").is_file());
    }
    // Links without an end are told of, and nothing is made.
    let bundle = host.bundle().own_rootfs().push("/mounts", volume(&file, "/etc/loop/x", &["bind"]));
    symlink("loop", bundle.dir().join("rootfs/etc/loop")).unwrap();
    host.run(&bundle).failure(1, &["make mount point /etc/loop/x: too many levels of symbolic links"]);
}
