use super::{matches, steps};

#[test]
fn commands_continue_and_keep_what_they_print() {
    let page = "text\n```console\n$ cat <<END\n> a\n> END\na\n$ true\n```\n```sh\n$ not this\n```\n";
    let steps = steps(page);
    assert_eq!(steps.len(), 2);
    assert_eq!(
        (steps[0].command.as_str(), &steps[0].prints[..]),
        ("cat <<END\na\nEND", &["a".to_owned()][..])
    );
    assert_eq!((steps[1].command.as_str(), steps[1].prints.len()), ("true", 0));
}

#[test]
fn dots_stand_for_any_text_within_a_line() {
    for (pattern, line) in [("", ""), ("a", "a"), ("…", ""), ("a…c", "abc"), ("…b…", "abc"), ("a…", "a")]
    {
        assert!(matches(pattern, line), "{pattern} {line}");
    }
    for (pattern, line) in [("a", "ab"), ("a…c", "ab"), ("…b", "bc"), ("a…a", "a")] {
        assert!(!matches(pattern, line), "{pattern} {line}");
    }
}
