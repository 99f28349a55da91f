use super::*;

fn line(node: u8, events: u32) -> Line {
    let mut handle = [0; 12];
    handle[7] = node;
    Line { device: Device { major: 0, minor: 45 }, handle: Handle(handle), events }
}

fn path(path: &str) -> WatchPath {
    path.as_bytes().to_vec().try_into().unwrap()
}

#[test]
fn an_inode_that_many_watch_is_seen_once_with_all_events() {
    let mut seen = Seen::default();
    seen.add(line(1, 0x2));
    seen.add(line(2, 0x4));
    seen.add(line(1, 0x100));
    assert_eq!(seen.lines, [line(1, 0x102), line(2, 0x4)]);
}

#[test]
fn what_is_more_than_a_scan_looks_at_is_counted() {
    let mut seen = Seen::default();
    for number in 0..SEEN as u32 + 7 {
        let mut handle = [0; 12];
        handle[..4].copy_from_slice(&number.to_ne_bytes());
        seen.add(Line { handle: Handle(handle), ..line(0, 2) });
    }
    assert_eq!((seen.lines.len(), seen.beyond), (SEEN, 7));
}

#[test]
fn the_bounds_hold_by_number_and_by_bytes() {
    let filled = |path: &WatchPath| {
        let mut bounds = Bounds::default();
        while !bounds.are_full() {
            bounds.take(path);
        }
        (bounds.watches, bounds.bytes)
    };
    assert_eq!(filled(&path("a")).0, limits::WATCHES);
    let (watches, bytes) = filled(&path(&format!("{0}/{0}/{0}/{0}", "b".repeat(255))));
    assert!(watches < limits::WATCHES && bytes <= limits::WATCH_BYTES);
}

#[test]
fn a_file_that_several_mounts_have_is_told_of_once() {
    let watched = |inode, events| Watched { path: path("web/mounts/0"), inode, events };
    let all = [watched(8, 2), watched(7, 2), watched(7, 4)];
    assert_eq!(together(all.iter()), [watched(7, 6), watched(8, 2)]);
}
