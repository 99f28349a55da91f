use super::*;

fn received(detail: &str) -> String {
    let sent = format!("{{\"triple-fault\":{}}}", serde_json::to_string(detail).unwrap());
    match serde_json::from_str(&sent).unwrap() {
        GuestExit::TripleFault(detail) => detail.into(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_detail_is_one_line_whatever_the_sender_wrote() {
    assert_eq!(received("rip=0x12 äöü"), "rip=0x12 äöü");
    assert_eq!(received("a\nb\u{1b}[2Jc\u{7f}"), "a?b?[2Jc?");
}

#[test]
fn a_detail_is_cut_between_characters() {
    let cut = received(&"ä".repeat(limits::DETAIL));
    assert_eq!(cut.len(), limits::DETAIL);
    let cut = received(&format!("x{}", "ä".repeat(limits::DETAIL)));
    assert_eq!(cut.len(), limits::DETAIL - 1);
}

#[test]
fn a_detail_that_is_cut_still_fits_after_its_control_characters_are_replaced() {
    // U+0085 takes two bytes, the question mark one.
    assert!(received(&"\u{85}".repeat(limits::DETAIL)).len() <= limits::DETAIL);
}
