//! Line numbers in a TOML text, for faults.

/// Returns the number, from 1, of the line that contains the byte `at`.
pub(super) fn line(text: &str, at: usize) -> usize {
    text.bytes().take(at).filter(|byte| *byte == b'\n').count() + 1
}

/// Returns the line at which the text is not TOML, and the reason in one line. The library's own text has several lines
/// with a copy of the file's text.
pub(super) fn syntax(text: &str, error: &toml::de::Error) -> (usize, String) {
    let at = error.span().map_or(text.len(), |span| span.start);
    (line(text, at), error.message().replace('\n', " "))
}
