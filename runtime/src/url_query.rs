//! The query of a URL, as it stands there: percent-encoded.

/// Names and values, in their order.
pub(crate) fn pairs(query: &str) -> impl DoubleEndedIterator<Item = (&str, &str)> {
    query.split('&').filter_map(|pair| pair.split_once('='))
}

/// The first value of this name.
pub(crate) fn first<'q>(query: &'q str, name: &str) -> Option<&'q str> {
    pairs(query).find(|(given, _)| *given == name).map(|(_, value)| value)
}
