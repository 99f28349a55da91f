use super::*;

#[test]
fn a_terminal_without_anybody_to_hold_it_is_refused() {
    let error = terminal(true, Mode::Detached, None).unwrap_err();
    assert!(error.to_string().contains("without setting console socket"), "{error}");
}

#[test]
fn a_console_socket_without_a_terminal_is_refused() {
    let socket = Path::new("/run/console.sock");
    for (wanted, mode) in [(false, Mode::Detached), (false, Mode::Foreground), (true, Mode::Foreground)] {
        assert!(terminal(wanted, mode, Some(socket)).is_err(), "{wanted} {mode:?}");
    }
    let console = terminal(true, Mode::Detached, Some(socket)).unwrap();
    assert_eq!(console, Some(Terminal::Console(socket.into())));
}

#[test]
fn without_a_terminal_nothing_is_asked_for() {
    assert_eq!(terminal(false, Mode::Detached, None).unwrap(), None);
    assert_eq!(terminal(false, Mode::Foreground, None).unwrap(), None);
}
