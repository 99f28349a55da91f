use super::*;

/// The line without what each line begins and ends with.
fn shown(message: &str) -> String {
    let line = rendered(&message);
    line.strip_prefix("bulkhead-vmm: ").unwrap().strip_suffix('\n').unwrap().to_owned()
}

#[test]
fn plain_text_is_shown_as_it_is() {
    let text = r#"read the tap: "No such device" (os error 19), name 'äöü', path C:\x"#;
    assert_eq!(shown(text), text);
}

#[test]
fn what_steers_a_terminal_or_ends_the_line_is_written_out() {
    assert_eq!(
        shown("a\u{1b}]0;title\u{7}\r\nforged line\tb"),
        r"a\u001b]0;title\u0007\u000d\u000aforged line\u0009b"
    );
    // C1 controls, and letters that turn the writing direction or separate lines.
    for letter in ['\u{7f}', '\u{9b}', '\u{61c}', '\u{200e}', '\u{2028}', '\u{202e}', '\u{2066}', '\u{2069}']
    {
        assert_eq!(shown(&format!("<{letter}>")), format!("<\\u{:04x}>", u32::from(letter)));
    }
}
