use std::{fs, os::unix::fs::MetadataExt as _, path::Path};

use super::*;
use crate::sandbox::watches::fanotify::{Event, Place, parse};

fn watched(share: &Path, path: &str, events: u32) -> Watched {
    let inode = fs::symlink_metadata(share.join(path)).unwrap().ino();
    Watched { path: path.as_bytes().to_vec().try_into().unwrap(), inode, events }
}

pub(in super::super) fn marks(share: &Path) -> Marks {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Marks::new(rustix::fs::open(share, flags, Mode::empty()).unwrap())
}

/// `None`, with a line that says so, where the kernel lets nobody but root have a group.
pub(in super::super) fn group() -> Option<Group> {
    let group = Group::new();
    if let Err(error) = &group {
        eprintln!("skipped: no fanotify group: {error}");
    }
    group.ok()
}

pub(in super::super) fn read(group: &Group) -> Vec<Event> {
    let mut buffer = vec![0; 4096];
    let len = group.read(&mut buffer).unwrap_or(0);
    parse(&buffer[..len])
}

#[test]
fn a_watched_directory_is_marked_until_it_is_watched_no_more() {
    let Some(group) = group() else { return };
    let share = tempfile::tempdir().unwrap();
    fs::create_dir(share.path().join("a")).unwrap();
    let mut marks = marks(share.path());
    let set = [watched(share.path(), "a", watch::CREATE)];
    assert!(marks.become_those_of(&group, &set).is_empty());
    fs::write(share.path().join("a/x"), "").unwrap();
    let events = read(&group);
    assert_eq!(events.len(), 1, "{events:?}");
    assert!(matches!(&events[0].places[..], [Place::Named { directory, name }]
        if name == b"x" && marks.get(directory).is_some()));
    assert!(marks.become_those_of(&group, &[]).is_empty());
    fs::write(share.path().join("a/y"), "").unwrap();
    assert_eq!(read(&group), []);
    assert_eq!(marks.stale, 0);
}

#[test]
fn watchers_that_ask_for_more_get_more() {
    let Some(group) = group() else { return };
    let share = tempfile::tempdir().unwrap();
    fs::create_dir(share.path().join("a")).unwrap();
    let mut marks = marks(share.path());
    for events in [watch::DELETE, watch::DELETE | watch::MOVED_TO] {
        assert!(marks.become_those_of(&group, &[watched(share.path(), "a", events)]).is_empty());
    }
    fs::write(share.path().join("x"), "").unwrap();
    fs::rename(share.path().join("x"), share.path().join("a/x")).unwrap();
    assert_eq!(read(&group).len(), 1);
    assert_eq!(marks.marks.len(), 1);
}

#[test]
fn a_guest_marks_nothing_outside_of_its_share_and_nothing_that_is_another_file() {
    let Some(group) = group() else { return };
    let outside = tempfile::tempdir().unwrap();
    fs::create_dir(outside.path().join("secret")).unwrap();
    let share = tempfile::tempdir().unwrap();
    fs::create_dir(share.path().join("a")).unwrap();
    std::os::unix::fs::symlink(outside.path(), share.path().join("link")).unwrap();
    let mut marks = marks(share.path());
    let secret = watched(outside.path(), "secret", watch::CREATE);
    let by = |path: &str| Watched { path: path.as_bytes().to_vec().try_into().unwrap(), ..secret.clone() };
    assert!(marks.become_those_of(&group, &[by("link/secret"), by("link"), by("a"), by("none")]).is_empty());
    assert!(marks.ids.is_empty() && marks.marks.is_empty());
}

#[test]
fn two_paths_of_one_inode_have_one_mark() {
    let Some(group) = group() else { return };
    let share = tempfile::tempdir().unwrap();
    fs::write(share.path().join("a"), "").unwrap();
    fs::hard_link(share.path().join("a"), share.path().join("b")).unwrap();
    let mut marks = marks(share.path());
    let set = ["a", "b"].map(|path| watched(share.path(), path, watch::MODIFY));
    assert!(marks.become_those_of(&group, &set).is_empty());
    assert_eq!((marks.ids.len(), marks.marks.len()), (2, 1));
    assert!(marks.become_those_of(&group, &set[1..]).is_empty());
    fs::write(share.path().join("a"), "news").unwrap();
    assert_eq!(read(&group).len(), 1);
}
