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
    assert_eq!(top_mount_points(TABLE), ["/with space", "/run", "/proc"]);
}

#[test]
fn an_escaped_mount_point_is_read_back() {
    assert_eq!(unescape(r"a\040b\134c\011"), "a b\\c\t");
    assert_eq!(unescape(r"broken\9"), r"broken\9");
}
