use std::{fs, path::Path};

use bulkhead_protocol::watch::{EVENTS, Watched};

use super::*;
use crate::sandbox::watches::{
    fanotify::RENAME,
    fanotify::tests::id,
    marks::tests::{group, marks, read},
};

fn watched(share: &Path, path: &str) -> Watched {
    use std::os::unix::fs::MetadataExt as _;
    let inode = fs::metadata(share.join(path)).unwrap().ino();
    Watched { path: path.as_bytes().to_vec().try_into().unwrap(), inode, events: EVENTS }
}

/// What watchers of these paths are told after `change`, in short: `CREATE a/x`, `MODIFY f`.
fn told(paths: &[&str], own: &[u32], change: impl FnOnce(&Path)) -> Option<Vec<String>> {
    let group = group()?;
    let share = tempfile::tempdir().unwrap();
    fs::create_dir(share.path().join("a")).unwrap();
    fs::create_dir(share.path().join("a/sub")).unwrap();
    // Without opening it: a child that another test starts would have a copy of the descriptor, and close it later.
    rustix::fs::mknodat(
        rustix::fs::CWD,
        share.path().join("a/f"),
        rustix::fs::FileType::RegularFile,
        0o644.into(),
        0,
    )
    .unwrap();
    let mut marks = marks(share.path());
    let set: Vec<_> = paths.iter().map(|path| watched(share.path(), path)).collect();
    assert!(marks.become_those_of(&group, &set).is_empty());
    change(share.path());
    let mut news = News::default();
    news.take(&read(&group), &marks, own);
    Some(news.next(usize::MAX).iter().map(short).collect())
}

fn short(event: &FileEvent) -> String {
    let names = [
        (CREATE, "CREATE"),
        (DELETE, "DELETE"),
        (MODIFY, "MODIFY"),
        (ATTRIB, "ATTRIB"),
        (CLOSE_WRITE, "CLOSE_WRITE"),
        (MOVED_FROM, "MOVED_FROM"),
        (MOVED_TO, "MOVED_TO"),
        (MOVE_SELF, "MOVE_SELF"),
        (DELETE_SELF, "DELETE_SELF"),
        (IS_DIRECTORY, "DIR"),
    ];
    let kinds: Vec<_> =
        names.iter().filter(|(bit, _)| event.mask & bit != 0).map(|(_, name)| *name).collect();
    let path = String::from_utf8_lossy(event.path.as_bytes()).into_owned();
    let name = event.name.as_ref().map(|name| format!("/{}", String::from_utf8_lossy(name.as_bytes())));
    let cookie = if event.cookie == 0 { String::new() } else { format!(" #{}", event.cookie) };
    format!("{} {path}{}{cookie}", kinds.join("|"), name.unwrap_or_default())
}

#[test]
fn a_file_that_is_written_is_told_of_by_name() {
    // A program of its own, whose descriptors nobody copies.
    let write = |share: &Path| {
        let mut shell = std::process::Command::new("sh");
        assert!(shell.args(["-c", "printf new >a/x"]).current_dir(share).status().unwrap().success());
    };
    let Some(told) = told(&["a"], &[], write) else { return };
    assert_eq!(told, ["CREATE a/x", "MODIFY a/x", "CLOSE_WRITE a/x"]);
}

#[test]
fn what_the_guest_itself_does_is_told_of_to_nobody() {
    let own = [std::process::id()];
    let change = |share: &Path| {
        fs::create_dir(share.join("a/x")).unwrap();
        fs::remove_file(share.join("a/f")).unwrap();
    };
    let Some(told) = told(&["a"], &own, change) else { return };
    assert_eq!(told, [""; 0]);
}

#[test]
fn a_renamed_file_keeps_its_cookie_and_its_own_watchers() {
    let change = |share: &Path| {
        fs::rename(share.join("a/f"), share.join("a/g")).unwrap();
        fs::create_dir(share.join("a/d")).unwrap();
    };
    let Some(told) = told(&["a", "a/f"], &[], change) else { return };
    let joined = ["MOVED_FROM a/f #1", "MOVED_TO a/g #1", "MOVE_SELF a/f", "CREATE|DIR a/d"];
    // Before Linux 5.17 nothing joins them.
    let apart = ["MOVED_FROM a/f", "MOVED_TO a/g", "MOVE_SELF a/f", "CREATE|DIR a/d"];
    assert!(told == joined || told == apart, "{told:?}");
}

#[test]
fn what_is_gone_ends_its_own_watches_even_while_somebody_has_it_open() {
    let change = |share: &Path| {
        let _open =
            [fs::File::open(share.join("a/f")).unwrap(), fs::File::open(share.join("a/sub")).unwrap()];
        fs::remove_file(share.join("a/f")).unwrap();
        fs::remove_dir(share.join("a/sub")).unwrap();
        std::mem::forget(_open);
    };
    let Some(told) = told(&["a", "a/f", "a/sub"], &[], change) else { return };
    for expected in ["DELETE a/f", "DELETE_SELF a/f", "DELETE|DIR a/sub", "DELETE_SELF a/sub"] {
        assert!(told.iter().any(|told| told == expected), "{expected}: {told:?}");
    }
}

#[test]
fn changes_that_the_kernel_put_together_end_as_the_directory_is() {
    let twice = |share: &Path| {
        fs::write(share.join("a/x"), "").unwrap();
        fs::remove_file(share.join("a/x")).unwrap();
    };
    let Some(gone) = told(&["a"], &[], twice) else { return };
    assert_eq!(gone[..2], ["CREATE a/x", "DELETE a/x"], "{gone:?}");
    let again = |share: &Path| {
        fs::remove_file(share.join("a/f")).unwrap();
        fs::write(share.join("a/f"), "").unwrap();
    };
    let there = told(&["a"], &[], again).unwrap();
    assert_eq!(there.first().unwrap(), "DELETE a/f");
    assert!(there.contains(&"CREATE a/f".to_owned()), "{there:?}");
}

#[test]
fn equal_neighbours_are_one_and_a_full_queue_says_so() {
    let mut news = News::default();
    let path = WatchPath::try_from(b"a".to_vec()).unwrap();
    for _ in 0..3 {
        news.say(&path, Some(b"x"), MODIFY, 0);
    }
    news.say(&path, Some(b"y"), MODIFY, 0);
    news.say(&path, Some(b"x"), MODIFY, 0);
    assert_eq!(
        news.next(9).iter().map(short).collect::<Vec<_>>(),
        ["MODIFY a/x", "MODIFY a/y", "MODIFY a/x"]
    );
    assert!(!news.has_lost());
    for number in 0..=WAITING {
        news.say(&path, Some(number.to_string().as_bytes()), MODIFY, 0);
    }
    assert_eq!(news.waiting.len(), WAITING);
    assert!(news.has_lost() && !news.has_lost());
}

#[test]
fn an_overflow_of_the_kernels_queue_is_told_of_once() {
    let share = tempfile::tempdir().unwrap();
    let mut news = News::default();
    let overflow = Event { mask: OVERFLOW, pid: 0, places: vec![] };
    let unknown =
        Event { mask: RENAME, pid: 1, places: vec![Place::From { directory: id(1), name: b"x".to_vec() }] };
    news.take(&[overflow, unknown], &marks(share.path()), &[]);
    assert!(news.has_lost() && news.is_empty() && !news.has_lost());
}
