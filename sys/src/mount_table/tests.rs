use super::*;

fn table(lines: &[&str]) -> MountTable {
    MountTable::parse(lines.join("\n").as_bytes())
}

fn below(table: &MountTable, id: u64, path: &str) -> Vec<String> {
    table.below(id, Path::new(path)).iter().map(|entry| entry.point.display().to_string()).collect()
}

#[test]
fn the_fields_of_a_line_are_read_whatever_stands_between() {
    let line = "36 35 98:0 /mnt1 /mnt\\0402 ro,nosuid,noatime master:1 unbindable - ext3 /dev/root rw,errors=continue";
    let table = table(&[line, "nonsense", ""]);
    let [entry] = table.entries() else { panic!("{table:?}") };
    assert_eq!((entry.id, entry.parent, entry.device), (36, 35, (98, 0)));
    assert_eq!((entry.root.to_str(), entry.point.to_str()), (Some("/mnt1"), Some("/mnt 2")));
    assert_eq!(
        entry.attributes,
        libc::MOUNT_ATTR_RDONLY | libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NOATIME
    );
    assert!(entry.unbindable);
    assert_eq!(entry.kind, b"ext3");
}

#[test]
fn the_way_of_access_times_is_what_the_words_leave() {
    let attributes =
        |options: &str| table(&[&format!("1 0 0:1 / / {options} - tmpfs t rw")]).entries()[0].attributes;
    assert_eq!(attributes("rw,relatime"), 0);
    assert_eq!(attributes("rw"), libc::MOUNT_ATTR_STRICTATIME);
    assert_eq!(attributes("rw,noatime,nodiratime"), libc::MOUNT_ATTR_NOATIME | libc::MOUNT_ATTR_NODIRATIME);
}

#[test]
fn a_backslash_that_begins_no_number_stays() {
    assert_eq!(unescape(b"/a\\134b\\x\\01"), Path::new("/a\\b\\x\\01"));
    assert_eq!(unescape(b"/\\303\\244"), Path::new("/ä"));
}

#[test]
fn mounts_below_a_place_come_after_those_above_them() {
    let table = table(&[
        "1 0 0:1 / / rw,relatime - ext4 a rw",
        "2 1 0:2 / /data/sub rw,relatime - tmpfs b rw",
        "3 2 0:3 / /data/sub/deep/er rw,relatime - tmpfs c rw",
        "4 1 0:4 / /other rw,relatime - tmpfs d rw",
        "5 1 0:5 / /data rw,relatime - tmpfs the-place-itself rw",
    ]);
    assert_eq!(below(&table, 1, "/data"), ["/data/sub", "/data/sub/deep/er"]);
    assert_eq!(below(&table, 1, "/dat"), [""; 0]);
    assert_eq!(below(&table, 2, "/data/sub"), ["/data/sub/deep/er"]);
}

#[test]
fn what_another_mount_covers_is_not_seen() {
    let table = table(&[
        "1 0 0:1 / / rw,relatime - ext4 a rw",
        "2 1 0:2 / /data/twice rw,relatime - tmpfs covered rw",
        "3 2 0:3 / /data/twice/in rw,relatime - tmpfs covered rw",
        "4 2 0:4 / /data/twice rw,relatime - tmpfs top rw",
        "5 4 0:5 / /data/twice/on rw,relatime - tmpfs on-top rw",
        "6 1 0:6 / /data/dir/deep rw,relatime - tmpfs hidden rw",
        "7 1 0:7 / /data/dir rw,relatime - tmpfs later rw",
    ]);
    let seen = table.below(1, Path::new("/data"));
    let mut numbers: Vec<_> = seen.iter().map(|entry| entry.id).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, [4, 5, 7]);
}

#[test]
fn what_cannot_be_bound_is_left_out_with_all_below_it() {
    let table = table(&[
        "1 1 0:1 / / rw,relatime - ext4 a rw",
        "2 1 0:2 / /data/no rw,relatime unbindable - tmpfs b rw",
        "3 2 0:3 / /data/no/below rw,relatime - tmpfs c rw",
        "4 1 0:4 / /data/yes rw,relatime shared:4 - tmpfs d rw",
    ]);
    assert_eq!(below(&table, 1, "/"), ["/data/yes"]);
}

#[test]
fn the_mounts_of_this_thread_are_found_by_the_number_that_statx_gives() {
    use rustix::fs::{AtFlags, CWD, StatxFlags, statx};

    let here = statx(CWD, "/", AtFlags::empty(), StatxFlags::MNT_ID).unwrap();
    let table = MountTable::read().unwrap();
    assert_eq!(table.entry(here.stx_mnt_id).unwrap().point, Path::new("/"));
}
