use proptest::prelude::*;

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

/// What a caller may write: nothing, the right form with a few tokens, and anything else.
fn stream() -> impl Strategy<Value = String> {
    prop_oneof![
        Just(String::new()),
        "vsock:[ab]",
        "vsock:.{0,40}",
        "(vsock|fifo|binary)?:?/{0,3}[a-z]{0,8}",
        ".{0,20}"
    ]
}

proptest! {
    /// Nothing panics, an error quotes little of what it was given, and what is taken is one token for all streams.
    #[test]
    fn any_three_strings_are_streams_of_one_token_or_refused(
        terminal: bool,
        stdin in stream(),
        stdout in stream(),
        stderr in stream(),
    ) {
        let given: Vec<&str> = [&stdin, &stdout, &stderr].into_iter().filter(|s| !s.is_empty()).map(String::as_str).collect();
        let token = |stream: &str| stream.strip_prefix("vsock:")?.parse::<StreamToken>().ok();
        let tokens: Vec<_> = given.iter().map(|stream| token(stream)).collect();
        let fits = tokens.iter().all(|token| token.is_some() && *token == tokens[0])
            && (!terminal || stderr.is_empty());
        match Stdio::parse(terminal, &stdin, &stdout, &stderr) {
            Ok(stdio) => {
                prop_assert!(fits, "{:?} is taken", stdio);
                let wired = stdio.for_agent();
                let expected = tokens.into_iter().flatten().next().map(|token| token.to_string());
                prop_assert_eq!(wired.token, expected.unwrap_or_default());
                prop_assert!(!(wired.tty && (wired.stdin || wired.stdout || wired.stderr)));
            }
            Err(error) => {
                prop_assert!(!fits, "{error} of {:?}", given);
                prop_assert!(error.to_string().len() < 4096);
            }
        }
    }
}
