use super::*;
use crate::store::Entry;

fn id(name: &str) -> ContainerId {
    name.parse().unwrap()
}

/// A directory that looks like a cgroup.
fn cgroup(populated: u8) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("cgroup.events"), format!("populated {populated}\nfrozen 0\n")).unwrap();
    dir
}

#[test]
fn a_cgroup_with_processes_is_refused() {
    let (root, full, empty) = (tempfile::tempdir().unwrap(), cgroup(1), cgroup(0));
    let refusal = refuse_taken(full.path(), root.path(), &id("web")).unwrap_err().to_string();
    assert_eq!(refusal, format!("linux.cgroupsPath: {} is not empty", full.path().display()));
    assert!(matches!(Claim::take(full.path()), Err(CgroupError::Populated { .. })));
    refuse_taken(empty.path(), root.path(), &id("web")).unwrap();
    Claim::take(empty.path()).unwrap();
}

#[test]
fn the_cgroup_of_another_container_is_refused_also_when_that_one_has_stopped() {
    let (root, shared) = (tempfile::tempdir().unwrap(), cgroup(0));
    let other = StateDir::claim(root.path(), &id("other")).unwrap();
    let path = shared.path().to_owned();
    let refused = || refuse_taken(&path, root.path(), &id("web")).map_err(|e| e.to_string());
    assert_eq!(refused(), Ok(()));
    other.journal().append(&Entry::Cgroup { path: path.clone() }).unwrap();
    let words = format!("linux.cgroupsPath: {} is that of container other", path.display());
    assert_eq!(refused(), Err(words.clone()));
    // Its own record is none of another one.
    refuse_taken(&path, root.path(), &id("other")).unwrap();
    // One that it found, and runs in.
    other.journal().append(&Entry::Foreign { path: path.clone() }).unwrap();
    assert_eq!(refused(), Ok(()));
    other.journal().append(&Entry::Owned { path: path.clone() }).unwrap();
    assert_eq!(refused(), Err(words));
}

#[test]
fn of_two_creations_one_gets_the_cgroup() {
    let shared = cgroup(0);
    let first = Claim::take(shared.path()).unwrap();
    assert!(matches!(Claim::take(shared.path()), Err(CgroupError::Populated { .. })));
    drop(first);
    Claim::take(shared.path()).unwrap();
}
