use super::*;

/// What a child is between fork and exec: somebody with a copy of the descriptor.
fn copy(lock: &Flock) -> File {
    lock.as_fd().try_clone_to_owned().unwrap().into()
}

#[test]
fn a_lock_ends_with_its_holder_and_not_with_the_last_copy_of_its_descriptor() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let take = || Flock::take(file.reopen().unwrap()).unwrap();
    let held = take().unwrap();
    assert!(take().is_none());
    let child = copy(&held);
    drop(held);
    let again = take().expect("the lock is free");
    // What the child had is worth nothing, also when it ends.
    drop(child);
    assert!(take().is_none());
    drop(again);
}

#[test]
fn a_lock_that_was_handed_over_is_the_others() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let take = || Flock::take(file.reopen().unwrap()).unwrap();
    let first = take().unwrap();
    let other = Flock::received(copy(&first));
    first.handed_over();
    assert!(take().is_none());
    drop(other);
    assert!(take().is_some());
}
