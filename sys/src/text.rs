//! The last border before a person: text for standard output or standard error that steers no terminal.
//!
//! Messages quote text of the guest, its console, the VMM and bundles. Escape sequences, and letters that change the
//! direction of writing, are shown as in JSON (`\u001b`), so a line of JSON stays a line of JSON with the same meaning. The
//! output of containers does not pass here.

use std::{borrow::Cow, fmt::Write as _};

/// True for what changes how other text is shown. Line breaks and tabs do not.
#[must_use]
pub fn steers(letter: char) -> bool {
    let direction = matches!(letter,
        // Unicode Standard Annex 9, explicit directional formatting, and the separators of lines and paragraphs.
        '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    direction || (letter.is_control() && !matches!(letter, '\n' | '\t'))
}

/// The text with everything that steers written out.
#[must_use]
pub fn printable(text: &str) -> Cow<'_, str> {
    if !text.contains(steers) {
        return Cow::Borrowed(text);
    }
    let mut safe = String::with_capacity(text.len());
    let mut letters = text.chars().peekable();
    while let Some(letter) = letters.next() {
        // Consoles end their lines with both.
        let end_of_line = letter == '\r' && letters.peek() == Some(&'\n');
        if steers(letter) && !end_of_line {
            // Writing to a String cannot fail; all of these have four digits.
            let _ = write!(safe, "\\u{:04x}", u32::from(letter));
        } else {
            safe.push(letter);
        }
    }
    Cow::Owned(safe)
}

/// `printable`, and one line: line breaks and tabs are written out as well.
#[must_use]
pub fn line(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for letter in text.chars() {
        if steers(letter) || letter.is_control() {
            // Writing to a String cannot fail; all of these have four digits.
            let _ = write!(safe, "\\u{:04x}", u32::from(letter));
        } else {
            safe.push(letter);
        }
    }
    safe
}

/// `printable`, and no longer than `max` bytes.
#[must_use]
pub fn bounded(text: &str, max: usize) -> String {
    let mut safe = printable(text).into_owned();
    safe.truncate(safe.floor_char_boundary(max));
    safe
}

#[cfg(test)]
mod tests;
