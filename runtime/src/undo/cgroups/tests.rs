use std::process::{Child, Command};

use super::*;

struct Killed(Child);

impl Killed {
    fn new() -> Self {
        Self(Command::new("sleep").arg("600").spawn().unwrap())
    }

    fn is_alive(&self) -> bool {
        Process::of(self.0.id()).is_ok_and(|process| process.is_alive())
    }
}

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_directory_that_others_had_made_is_not_removed() {
    let (parent, leaf) = (PathBuf::from("/cg/a"), PathBuf::from("/cg/a/b"));
    let mut entries = vec![Entry::Cgroup { path: parent.clone() }, Entry::Cgroup { path: leaf.clone() }];
    assert_eq!(Leftovers::of(&entries).made, [leaf.clone(), parent.clone()]);
    entries.push(Entry::Foreign { path: leaf });
    assert_eq!(Leftovers::of(&entries).made, [parent]);
}

#[test]
fn only_a_cgroup_that_is_owned_and_not_vacated_is_emptied() {
    let path = PathBuf::from("/cg/b");
    let mut entries = vec![Entry::Cgroup { path: path.clone() }];
    assert!(Leftovers::of(&entries).owned.is_empty());
    entries.push(Entry::Owned { path: path.clone() });
    assert_eq!(Leftovers::of(&entries).owned, std::slice::from_ref(&path));
    entries.push(Entry::Vacated { path: path.clone() });
    assert!(Leftovers::of(&entries).owned.is_empty());
    assert_eq!(held(&entries).collect::<Vec<_>>(), [path]);
}

#[test]
fn what_is_not_ours_in_an_owned_cgroup_is_killed_and_what_is_ours_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let (ours, left) = (Killed::new(), Killed::new());
    let procs = dir.path().join("cgroup.procs");
    fs::write(&procs, format!("{}\n{}\n", ours.0.id(), left.0.id())).unwrap();
    // The kernel takes a dead process off the list; here that is for the test to do.
    let error = std::thread::scope(|scope| {
        let vacating = scope.spawn(|| vacate(dir.path(), &[ours.0.id()]));
        let dead = Process::of(left.0.id()).unwrap().wait(Instant::now() + GONE).unwrap();
        fs::write(&procs, format!("{}\n", ours.0.id())).unwrap();
        assert!(dead);
        vacating.join().unwrap()
    });
    error.unwrap();
    assert!(ours.is_alive() && !left.is_alive());
    vacate(Path::new("/sys/fs/cgroup/none"), &[]).unwrap();
}

#[test]
fn what_was_made_below_for_a_moment_goes_with_a_cgroup() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("web");
    for name in BELOW {
        fs::create_dir_all(path.join(name)).unwrap();
    }
    remove_all(&[Entry::Cgroup { path: path.clone() }]).unwrap();
    assert!(!path.exists());
}
