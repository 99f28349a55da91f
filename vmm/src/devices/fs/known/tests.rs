use super::*;

/// Two containers with a directory each, which has a file that is open.
fn two() -> Known {
    let known = Known::default();
    for (name, first) in [(&b"web"[..], 10), (b"db", 20)] {
        assert!(known.give(ROOT, name, first));
        assert!(known.give(first, b"rootfs", first + 1));
        assert!(known.give(first + 1, b"file", first + 2));
        assert!(known.open(first + 2, first + 100));
    }
    known
}

#[test]
fn what_is_revoked_is_all_of_one_container_and_nothing_else() {
    let known = two();
    assert!(known.give(11, b"file", 12));
    let mut revoked = known.revoke(b"web");
    revoked.inodes.sort_unstable();
    assert_eq!(revoked, Revoked { inodes: vec![(10, 1), (11, 1), (12, 2)], handles: vec![(110, 12)] });
    assert!([10, 11, 12].iter().all(|inode| !known.has(*inode)));
    assert!([ROOT, 20, 21, 22].iter().all(|inode| known.has(*inode)));
    assert_eq!(known.revoke(b"web"), Revoked::default());
}

#[test]
fn a_request_that_ran_meanwhile_brings_nothing_back() {
    let known = two();
    known.revoke(b"web");
    assert!(!known.give(11, b"late", 13));
    assert!(!known.open(12, 111));
    // The next container of that name is another owner.
    assert!(known.give(ROOT, b"web", 30));
    assert_eq!(known.revoke(b"web").inodes, [(30, 1)]);
}

#[test]
fn an_inode_is_there_as_often_as_it_was_given() {
    let known = two();
    assert!(known.give(10, b"rootfs", 11));
    assert_eq!(
        [known.forget(11, 1), known.forget(11, 9), known.forget(11, 1), known.forget(99, 1)],
        [1, 1, 0, 0]
    );
    assert!(!known.has(11) && known.has(12));
    known.close(112);
    known.clear();
    assert!(!known.has(12) && known.has(ROOT));
}
