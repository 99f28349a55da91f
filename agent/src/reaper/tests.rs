use super::*;

fn take(exit: Exit) -> Option<ExitStatus> {
    let mut receiver = exit.0;
    receiver.try_recv().ok()
}

#[test]
fn a_claimed_child_gets_its_status_when_it_is_reaped() {
    let mut children = Children { expecting: 1, ..Children::default() };
    let exit = children.claim(7, true);
    children.reaped(7, ExitStatus::Code(3));
    assert_eq!(take(exit), Some(ExitStatus::Code(3)));
}

#[test]
fn a_child_that_died_before_its_pid_was_known_is_not_lost() {
    let mut children = Children { expecting: 1, ..Children::default() };
    children.reaped(7, ExitStatus::Signal(9));
    assert_eq!(take(children.claim(7, false)), Some(ExitStatus::Signal(9)));
}

#[test]
fn a_live_child_does_not_inherit_the_status_of_an_earlier_one_with_its_pid() {
    let mut children = Children { expecting: 1, ..Children::default() };
    children.reaped(7, ExitStatus::Code(1));
    let exit = children.claim(7, true);
    children.reaped(7, ExitStatus::Code(2));
    assert_eq!(take(exit), Some(ExitStatus::Code(2)));
}

#[test]
fn orphans_are_forgotten_when_nobody_expects_a_child() {
    let mut children = Children::default();
    children.reaped(7, ExitStatus::Code(0));
    assert!(children.unclaimed.is_empty());
}

#[test]
fn the_last_expecting_to_go_forgets_what_was_kept() {
    let reaper = Reaper::default();
    let (first, second) = (reaper.expect_children(), reaper.expect_children());
    reaper.children().reaped(7, ExitStatus::Code(0));
    drop(first);
    assert_eq!(reaper.children().unclaimed.len(), 1);
    drop(second);
    assert!(reaper.children().unclaimed.is_empty());
}
