use super::{
    again::{After, Again, MOST},
    runner::resets,
};

#[test]
fn only_the_reset_control_register_resets() {
    assert!(resets(0xcf9, &[0xff]) && resets(0xcf9, &[0x0e]) && resets(0xcf9, &[0x04]));
    // What Linux writes first, other ports, and a width that the register has not.
    assert!(!resets(0xcf9, &[0xf3]) && !resets(0xcf8, &[0xff]) && !resets(0xcf9, &[0xff, 0xff]));
}

#[test]
fn try_again_without_end_is_found_out_and_a_guest_that_runs_starts_anew() {
    let mut again = Again::default();
    let eagain = Some(libc::EAGAIN);
    let turns: Vec<_> = (0..MOST).map(|_| again.take(eagain)).collect();
    let (last, before) = turns.split_last().unwrap();
    assert_eq!(*last, After::Stuck);
    assert!(before[..16].iter().all(|after| *after == After::Go));
    assert!(before[16..].iter().all(|after| *after == After::Pause));
    assert_eq!(again.take(Some(libc::EINTR)), After::Go);
    assert_eq!(again.take(eagain), After::Go);
    assert_eq!(again.take(None), After::Go);
    assert_eq!(again.0, 0);
}
