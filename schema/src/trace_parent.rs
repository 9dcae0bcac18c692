//! The place of a request in a trace of several services: `traceparent` of W3C's Trace Context.
//!
//! Invariant: an invalid `traceparent` counts as none, as W3C requires: a new trace begins, and the request is not
//! refused.
use std::fmt;

use serde::{Deserialize, Deserializer};

/// The length of version 00 in bytes. Later versions begin with the same fields.
const LENGTH: usize = 55;

/// The trace of a request, the span that the request comes from, and whether that span is recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceParent {
    /// The trace's id, which is not 0.
    pub trace: u128,
    /// The span's id, which is not 0.
    pub span: u64,
    /// Whether the span is recorded.
    pub sampled: bool,
}

impl TraceParent {
    /// Reads the header.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (head, rest) = text.split_at_checked(LENGTH)?;
        let mut parts = head.split('-');
        let (version, trace, span, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let lengths = (version.len(), trace.len(), span.len(), flags.len()) == (2, 32, 16, 2) && parts.next().is_none();
        let lower = head.bytes().all(|b| b == b'-' || b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        let known = if version == "00" { rest.is_empty() } else { rest.is_empty() || rest.starts_with('-') };
        if !lengths || !lower || !known || version == "ff" {
            return None;
        }
        let (trace, span) = (u128::from_str_radix(trace, 16).ok()?, u64::from_str_radix(span, 16).ok()?);
        let flags = u8::from_str_radix(flags, 16).ok()?;
        (trace != 0 && span != 0).then_some(Self { trace, span, sampled: flags & 1 == 1 })
    }
}

impl fmt::Display for TraceParent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{:032x}-{:016x}-{:02x}", self.trace, self.span, u8::from(self.sampled))
    }
}

/// Reads a field that may hold a `traceparent`. Any other value counts as none.
pub(crate) fn lenient<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<TraceParent>, D::Error> {
    let raw = <&serde_json::value::RawValue>::deserialize(deserializer)?;
    Ok(raw.get().strip_prefix('"').and_then(|text| text.strip_suffix('"')).and_then(TraceParent::parse))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn it_is_read_and_written_as_w3c_says() {
        let parent = TraceParent::parse(GOOD).unwrap();
        assert_eq!((parent.span, parent.sampled), (0x00f0_67aa_0ba9_02b7, true));
        assert_eq!(parent.to_string(), GOOD);
        let later = GOOD.replacen("00", "cc", 1).replace("-01", "-fe") + "-what-the-future-holds";
        let later = TraceParent::parse(&later).unwrap();
        assert_eq!(later, TraceParent { sampled: false, ..parent });
    }

    #[test]
    fn what_is_none_is_read_as_none() {
        let zero_trace = GOOD.replace("4bf92f3577b34da6a3ce929d0e0e4736", &"0".repeat(32));
        let zero_span = GOOD.replace("00f067aa0ba902b7", &"0".repeat(16));
        let longer = format!("{GOOD}-x");
        let (upper, unknown) = (GOOD.to_uppercase(), GOOD.replacen("00", "ff", 1));
        for text in
            ["", "00", "é", &zero_trace, &zero_span, &longer, &upper, &unknown, &GOOD.replace('-', "_"), &GOOD[1..]]
        {
            assert_eq!(TraceParent::parse(text), None, "{text}");
        }
    }
}
