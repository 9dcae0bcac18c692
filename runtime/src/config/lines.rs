//! Lines of a TOML text, for faults.

/// The line, from 1, that the byte `at` is in.
pub(super) fn line(text: &str, at: usize) -> usize {
    text.bytes().take(at).filter(|byte| *byte == b'\n').count() + 1
}

/// The line at which the text is no TOML, and the reason in one line. The library's own text has several, with a copy
/// of the file's.
pub(super) fn syntax(text: &str, error: &toml::de::Error) -> (usize, String) {
    let at = error.span().map_or(text.len(), |span| span.start);
    (line(text, at), error.message().replace('\n', " "))
}
