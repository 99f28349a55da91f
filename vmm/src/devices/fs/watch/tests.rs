use std::{fs, os::unix::fs::MetadataExt as _, path::Path, process::Command};

use rustix::fs::{CWD, Mode, OFlags, openat};

use super::*;

/// Another process changes something.
fn other(script: &str, directory: &Path) {
    let done = Command::new("sh").args(["-c", script]).current_dir(directory).status().unwrap();
    assert!(done.success());
}

fn path_only(path: &Path) -> std::os::fd::OwnedFd {
    openat(CWD, path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).unwrap()
}

fn place(path: &Path, mount: u64) -> Place {
    let status = fs::metadata(path).unwrap();
    Place { directory: (status.dev(), status.ino()), mount }
}

#[test]
fn what_another_process_changes_is_heard_of_and_what_this_one_does_is_not() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    fs::write(at.join("file"), "").unwrap();
    let group = Group::new().unwrap();
    group.meet(place(at, 1), true, path_only(at)).unwrap();
    assert!(!group.others_changed());
    fs::write(at.join("new"), "ours").unwrap();
    fs::rename(at.join("new"), at.join("newer")).unwrap();
    assert!(!group.others_changed(), "our own");
    for script in [
        "echo text >>file",
        ": >created",
        "mkdir made",
        "mv created moved",
        "ln -s x link",
        "chmod 600 file",
        "touch -d 2001-01-01 file",
        "rm moved",
        "rmdir made",
        "mv file elsewhere && mv elsewhere file",
    ] {
        other(script, at);
        assert!(group.others_changed(), "{script}");
        assert!(!group.others_changed(), "{script}, once more");
    }
    other("cat file >/dev/null; ls >/dev/null; stat file >/dev/null", at);
    assert!(!group.others_changed(), "nothing has changed");
}

#[test]
fn a_directory_is_marked_until_the_last_of_its_marks_is_taken_back() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    let group = Group::new().unwrap();
    let file = path_only(at);
    group.meet(place(at, 1), true, &file).unwrap();
    group.meet(place(at, 1), true, &file).unwrap();
    group.leave(place(at, 1), &file);
    other(": >first", at);
    assert!(group.others_changed());
    group.leave(place(at, 1), &file);
    other(": >second", at);
    assert!(!group.others_changed());
    // One too many says nothing.
    group.leave(place(at, 1), &file);
}

#[test]
fn what_the_guest_has_twice_it_may_change_behind_its_own_back() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    let (group, file) = (Group::new().unwrap(), path_only(at));
    // A volume first, of which nobody wants to hear.
    group.meet(place(at, 2), false, &file).unwrap();
    fs::write(at.join("first"), "").unwrap();
    assert!(!group.others_changed());
    group.meet(place(at, 1), true, &file).unwrap();
    fs::write(at.join("second"), "").unwrap();
    assert!(group.others_changed());
}

#[test]
fn a_guest_has_no_more_marks_than_its_share() {
    let directories = [(); 3].map(|()| tempfile::tempdir().unwrap());
    let [first, second, third] = directories.each_ref().map(tempfile::TempDir::path);
    let group = Group::with(2);
    let meet = |at: &Path| group.meet(place(at, 1), true, path_only(at));
    meet(first).unwrap();
    meet(first).unwrap();
    meet(second).unwrap();
    assert_eq!(meet(third).unwrap_err().raw_os_error(), Some(libc::ENOSPC));
    group.leave(place(second, 1), path_only(second));
    meet(third).unwrap();
}

#[test]
fn the_guest_is_told_by_a_change_of_config_space() {
    let directory = tempfile::tempdir().unwrap();
    let group = Arc::new(Group::new().unwrap());
    group.meet(place(directory.path(), 1), true, path_only(directory.path())).unwrap();
    let watcher = Watcher::spawn(Arc::clone(&group)).unwrap();
    let interrupt = Arc::new(Interrupt::new().unwrap());
    watcher.tell(Some(Arc::clone(&interrupt)));
    other(": >file", directory.path());
    let mut fds = [PollFd::from_borrowed_fd(borrow(interrupt.irqfd()), PollFlags::IN)];
    let deadline = Timespec { tv_sec: 30, tv_nsec: 0 };
    assert_eq!(poll(&mut fds, Some(&deadline)).unwrap(), 1, "no interrupt came");
    assert!(interrupt.state().config);
    watcher.tell(None);
    drop(watcher);
    assert_eq!(Arc::strong_count(&interrupt), 1);
}
