//! Small checks on text from outside.

/// At most `max` bytes of `text`, cut at a character's boundary.
pub fn cut(text: &str, max: usize) -> &str {
    text.get(..text.floor_char_boundary(max)).unwrap_or(text)
}

/// Is this one line of printable text, 1 to `max` bytes?
pub fn is_plain_line(text: &str, max: usize) -> bool {
    !text.is_empty() && text.len() <= max && !text.chars().any(char::is_control)
}
