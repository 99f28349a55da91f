use super::*;

const TABLE: &str = "\
1 1 0:2 / / rw - rootfs rootfs rw
20 1 0:19 / /proc rw,relatime - proc proc rw
21 20 0:30 / /proc/sys/fs/binfmt_misc rw - binfmt_misc none rw
22 1 0:20 / /run rw - tmpfs tmpfs rw
23 22 0:33 / /run/share rw - virtiofs share rw
24 1 0:40 / /with\\040space rw - tmpfs tmpfs rw
";

#[test]
fn only_mounts_on_the_root_are_detached_the_last_first() {
    let table = MountTable::parse(TABLE.as_bytes());
    assert_eq!(top_mount_points(&table), ["/with space", "/run", "/proc"].map(Path::new));
}
