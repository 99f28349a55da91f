use super::*;

#[test]
fn a_signal_is_a_number_or_a_name_in_any_spelling() {
    for kill in ["9", "KILL", "SIGKILL", "kill", "SigKill"] {
        assert_eq!(parse(kill), Some(9), "{kill}");
    }
    assert_eq!(parse("TERM"), Some(15));
    assert_eq!(parse("WINCH"), Some(28));
    assert_eq!(parse("IOT"), Some(6));
}

#[test]
fn real_time_signals_count_from_either_end() {
    assert_eq!(parse("RTMIN"), Some(34));
    assert_eq!(parse("SIGRTMIN+3"), Some(37));
    assert_eq!(parse("RTMAX-1"), Some(63));
    assert_eq!(parse("RTMAX+1"), None);
}

#[test]
fn what_is_no_signal_is_refused() {
    for bad in ["", "0", "65", "-9", "NOPE", "SIG", "RTMINx"] {
        assert_eq!(parse(bad), None, "{bad}");
    }
}
