use rustix::termios::{LocalModes, OutputModes};

use super::*;

#[test]
fn raw_mode_leaves_the_output_of_a_users_terminal_alone_and_ends_with_its_owner() {
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let master = openpt(flags).unwrap();
    unlockpt(&master).unwrap();
    let slave = ioctl_tiocgptpeer(&master, flags).unwrap();
    let modes = || {
        let now = tcgetattr(&slave).unwrap();
        (now.output_modes, now.local_modes.contains(LocalModes::ICANON | LocalModes::ECHO))
    };
    let before = modes();
    assert!(before.0.contains(OutputModes::OPOST | OutputModes::ONLCR) && before.1);
    let raw = RawMode::enter(&slave).unwrap();
    assert_eq!(modes(), (before.0, false));
    drop(raw);
    assert_eq!(modes(), before);
    make_raw(&slave, Output::Raw).unwrap();
    assert!(!modes().0.contains(OutputModes::OPOST));
}
