use super::*;

fn take(exit: Exit) -> Option<ExitStatus> {
    let mut receiver = exit.0;
    receiver.try_recv().ok()
}

#[test]
fn a_claimed_child_gets_its_status_when_it_is_reaped() {
    let mut table = Table { expecting: 1, ..Table::default() };
    let exit = table.claim(7, true);
    table.reaped(7, ExitStatus::Code(3));
    assert_eq!(take(exit), Some(ExitStatus::Code(3)));
}

#[test]
fn a_child_that_died_before_its_pid_was_known_is_not_lost() {
    let mut table = Table { expecting: 1, ..Table::default() };
    table.reaped(7, ExitStatus::Signal(9));
    assert_eq!(take(table.claim(7, false)), Some(ExitStatus::Signal(9)));
}

#[test]
fn a_live_child_does_not_inherit_the_status_of_an_earlier_one_with_its_pid() {
    let mut table = Table { expecting: 1, ..Table::default() };
    table.reaped(7, ExitStatus::Code(1));
    let exit = table.claim(7, true);
    table.reaped(7, ExitStatus::Code(2));
    assert_eq!(take(exit), Some(ExitStatus::Code(2)));
}

#[test]
fn orphans_are_forgotten_when_nobody_expects_a_child() {
    let mut table = Table::default();
    table.reaped(7, ExitStatus::Code(0));
    assert!(table.unclaimed.is_empty());
}

#[test]
fn the_last_expecting_to_go_forgets_what_was_kept() {
    let reaper = Reaper::default();
    let (first, second) = (reaper.expect_children(), reaper.expect_children());
    reaper.table().reaped(7, ExitStatus::Code(0));
    drop(first);
    assert_eq!(reaper.table().unclaimed.len(), 1);
    drop(second);
    assert!(reaper.table().unclaimed.is_empty());
}
