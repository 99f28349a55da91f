use super::*;

#[test]
fn what_steers_a_terminal_is_written_out() {
    for (text, shown) in [
        ("\u{1b}[2J\u{1b}]0;title\u{7}", r"\u001b[2J\u001b]0;title\u0007"),
        ("\u{9b}31m", r"\u009b31m"),
        ("back\u{8}\u{7f}", r"back\u0008\u007f"),
        ("over\rwritten", r"over\u000dwritten"),
        ("a\u{202e}b\u{2066}c", r"a\u202eb\u2066c"),
    ] {
        assert_eq!(printable(text), shown);
    }
}

#[test]
fn words_lines_and_tabs_stay() {
    let text = "\tcreate “wéb”: 日本\r\n\nnext";
    assert!(matches!(printable("plain\n"), Cow::Borrowed(_)));
    assert_eq!(printable(text), text);
}

#[test]
fn a_line_of_json_means_the_same_afterwards() {
    let value = serde_json::json!({ "msg": "\u{1b}[0m\u{9b}\u{202e}\u{7f}" });
    let line = value.to_string();
    assert_eq!(serde_json::from_str::<serde_json::Value>(&printable(&line)).unwrap(), value);
}

#[test]
fn a_line_stays_one_line() {
    assert_eq!(line("a\u{1b}[m\r\nforged\tb \u{202e}"), r"a\u001b[m\u000d\u000aforged\u0009b \u202e");
}

#[test]
fn a_bounded_text_is_cut_between_letters() {
    assert_eq!(bounded("äöü", 3), "ä");
    assert_eq!(bounded("\u{1b}[2J", 100), "\\u001b[2J");
}
