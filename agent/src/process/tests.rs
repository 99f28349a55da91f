use super::*;

#[test]
fn signals_are_the_kernels_zero_to_sixty_four() {
    assert_eq!(SignalNumber::new(0).unwrap().get(), None);
    assert_eq!(SignalNumber::new(9), Some(SignalNumber::KILL));
    assert_eq!(SignalNumber::new(64).unwrap().get().unwrap().as_raw(), 64);
    assert_eq!(SignalNumber::new(65), None);
    assert_eq!(SignalNumber::new(u32::MAX), None);
}
