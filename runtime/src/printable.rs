//! Texts of a guest or of its VMM, made fit to be shown: an escape sequence in one must not steer the reader's terminal.

/// Line ends and tabs stay; other control characters go, and what is beyond `max` bytes.
pub fn printable(mut text: String, max: usize) -> String {
    text.retain(|c| c == '\n' || c == '\t' || !c.is_control());
    text.truncate(text.floor_char_boundary(max));
    text
}

#[cfg(test)]
mod tests {
    use super::printable;

    #[test]
    fn control_characters_are_left_out_and_the_length_is_bounded() {
        let text = |text: &str, max| printable(text.to_owned(), max);
        assert_eq!(text("a\u{1b}[2Jb\r\n\tc\u{9b}d\u{7f}\0", 100), "a[2Jb\n\tcd");
        assert_eq!(text("äöü", 3), "ä");
    }
}
