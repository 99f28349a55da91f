use super::*;

#[test]
fn streams_that_the_caller_has_opened_are_passed_on_by_token() {
    let stdio = Stdio::parse(false, "", "vsock:abc", "vsock:abc").unwrap().for_agent();
    assert_eq!(
        (stdio.token.as_str(), stdio.stdin, stdio.stdout, stdio.stderr, stdio.tty),
        ("abc", false, true, true, false)
    );
}

#[test]
fn a_terminal_is_one_stream() {
    let stdio = Stdio::parse(true, "vsock:abc", "vsock:abc", "").unwrap().for_agent();
    assert_eq!((stdio.stdin, stdio.stdout, stdio.stderr, stdio.tty), (false, false, false, true));
    assert_eq!(Stdio::parse(true, "", "", "vsock:a"), Err(StdioError::Terminal));
}

#[test]
fn no_stream_at_all_is_fine() {
    assert_eq!(Stdio::parse(false, "", "", "").unwrap().for_agent(), agent::Stdio::default());
}

#[test]
fn other_forms_and_mixed_tokens_are_refused() {
    assert!(matches!(Stdio::parse(false, "/run/fifo", "", ""), Err(StdioError::Unsupported(_))));
    assert!(matches!(Stdio::parse(false, "vsock:a/b", "", ""), Err(StdioError::Unsupported(_))));
    assert_eq!(Stdio::parse(false, "vsock:a", "vsock:b", ""), Err(StdioError::Tokens));
}
