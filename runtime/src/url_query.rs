//! Reads the query of a URL without decoding it: names and values stay percent-encoded.

/// Returns names and values, in their order.
pub(crate) fn pairs(query: &str) -> impl DoubleEndedIterator<Item = (&str, &str)> {
    query.split('&').filter_map(|pair| pair.split_once('='))
}

/// Returns the first value of this name.
pub(crate) fn first<'q>(query: &'q str, name: &str) -> Option<&'q str> {
    pairs(query).find(|(given, _)| *given == name).map(|(_, value)| value)
}
