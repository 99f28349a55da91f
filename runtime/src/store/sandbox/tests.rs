use super::*;
use crate::store::StateDir;

fn id() -> SandboxId {
    "web".parse().unwrap()
}

#[test]
fn a_sandbox_and_a_container_of_one_name_are_two_directories() {
    let root = tempfile::tempdir().unwrap();
    let sandbox = SandboxDir::claim(root.path(), &id()).unwrap();
    let container = StateDir::claim(root.path(), &"web".parse().unwrap()).unwrap();
    assert_ne!(sandbox.path(), container.path());
    assert_eq!(StateDir::list(root.path()).unwrap(), ["web".parse().unwrap()]);
    assert!(matches!(SandboxDir::claim(root.path(), &id()), Err(StateError::SandboxExists { .. })));
}

#[test]
fn a_lock_that_was_handed_over_outlives_the_one_who_took_it() {
    let root = tempfile::tempdir().unwrap();
    let claimed = SandboxDir::claim(root.path(), &id()).unwrap();
    let lock = claimed.as_fd().try_clone_to_owned().unwrap();
    let open = || SandboxDir::open(root.path(), &id()).unwrap().unwrap();
    let received = LockedSandbox::received(open(), lock);
    claimed.handed_over();
    assert!(open().try_lock().unwrap().is_none());
    drop(received);
    open().try_lock().unwrap().unwrap().remove().unwrap();
    assert!(SandboxDir::open(root.path(), &id()).unwrap().is_none());
}

#[test]
fn the_lock_of_a_directory_that_was_removed_is_worth_nothing() {
    let root = tempfile::tempdir().unwrap();
    let claimed = SandboxDir::claim(root.path(), &id()).unwrap();
    let late = SandboxDir::open(root.path(), &id()).unwrap().unwrap();
    claimed.remove().unwrap();
    assert!(late.try_lock().unwrap().is_none());
}
