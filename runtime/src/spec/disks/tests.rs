use bulkhead_protocol::container::MountSource;
use serde_json::{Value, json};

use super::super::{
    HostPart,
    fixture::{Fixture, bundle, one},
};
use super::*;

fn mount(kind: &str, source: &Path, options: &[&str]) -> Fixture {
    let mount: Value = json!({"destination": "/data", "type": kind, "source": source, "options": options});
    bundle().set("mounts", one(mount))
}

fn image() -> tempfile::NamedTempFile {
    tempfile::NamedTempFile::new().unwrap()
}

#[test]
fn a_filesystem_in_a_file_becomes_a_disk_of_the_guest() {
    let image = image();
    let bundle = mount("ext4", image.path(), &["loop", "noatime"]).load().unwrap();
    let HostPart { disks, exports, .. } = &bundle.host;
    let source = image.path().canonicalize().unwrap();
    let name = disks[0].name.clone();
    let disk = DiskMount { source, name, filesystem: DiskFilesystem::Ext4, read_only: false };
    assert_eq!((disks.as_slice(), exports.as_slice()), ([disk.clone()].as_slice(), [].as_slice()));
    assert!(disk.name.as_str().ends_with("/disks/0") && bundle.has_disks(), "{:?}", disk.name);
    let guest = &bundle.guest.mounts[0];
    assert_eq!(guest.source, MountSource::Export { name: disk.name });
    assert!(guest.data.is_empty() && guest.super_flags.is_empty() && guest.set != 0);
}

#[test]
fn a_disk_is_read_only_when_the_mount_is_or_the_filesystem() {
    let image = image();
    let read_only =
        |kind, options: &[&str]| mount(kind, image.path(), options).load().unwrap().host.disks[0].read_only;
    assert!(!read_only("ext4", &[]) && !read_only("ext4", &["ro", "rw"]));
    assert!(read_only("ext4", &["ro"]) && read_only("ext4", &["rro"]));
    assert!(read_only("erofs", &[]));
}

#[test]
fn what_the_guest_cannot_do_with_a_disk_is_refused() {
    let image = image();
    let refusal = |kind: &str, options: &[&str]| mount(kind, image.path(), options).refusal();
    let kinds = "mounts[0].type is not supported: \"xfs\" is not one of bind, cgroup, cgroup2, proc, sysfs, tmpfs, \
                 devpts, mqueue, ext4, erofs";
    assert_eq!(refusal("xfs", &[]), kinds);
    for option in ["errors=panic", "data=journal", "discard", "sync", "X-mount.mkdir"] {
        let told = format!(
            "mounts[0].options {option:?} is not supported: ext4 of a disk is mounted without options of its own"
        );
        assert_eq!(refusal("ext4", &["rw", option]), told);
    }
    let mapped = refusal("ext4", &["idmap"]);
    assert!(mapped.starts_with("mounts[0].options idmap or ridmap: an id-mapped mount needs"), "{mapped}");
    let copied = refusal("ext4", &["tmpcopyup"]);
    assert!(copied.contains("only a tmpfs can have tmpcopyup"), "{copied}");
}

#[test]
fn a_disk_is_a_block_device_or_a_file_that_is_there() {
    let directory = tempfile::tempdir().unwrap();
    let refusal = mount("ext4", directory.path(), &[]).refusal();
    let path = directory.path().display();
    let told =
        format!("mounts[0].source is not supported: {path} is neither a block device nor a regular file");
    assert_eq!(refusal, told);
    let null = mount("ext4", Path::new("/dev/null"), &[]).refusal();
    assert!(null.ends_with("/dev/null is neither a block device nor a regular file"), "{null}");
    let absent = mount("ext4", &directory.path().join("absent"), &[]).refusal();
    assert!(absent.starts_with("mounts[0].source"), "{absent}");
    let unnamed = bundle().set("mounts", one(json!({"destination": "/data", "type": "ext4"}))).refusal();
    assert_eq!(unnamed, "mounts[0].source is missing");
}
