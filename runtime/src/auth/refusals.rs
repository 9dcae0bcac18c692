//! Why tokens are refused, for the operator: a metric, and a log line at a limited rate.
//!
//! Invariant: nothing of a token is logged but its issuer and the name of its key, short and without control characters:
//! neither was checked.
use super::{AuthError, token::Unchecked};
use rollcall_base::{log_limit::LogLimit, names};

/// Of an issuer or a key's name so many characters are shown.
const SHOWN: usize = 100;

/// Counts and logs refused tokens.
#[derive(Debug)]
pub(super) struct Refusals(LogLimit);

impl Refusals {
    pub(super) fn new() -> Self {
        Self(LogLimit::new())
    }

    /// A token was refused; what it says of itself, where it could be read.
    pub(super) fn record(&self, error: AuthError, token: Option<&Unchecked<'_>>) {
        metrics::counter!(names::TOKENS_REFUSED, "reason" => error.label()).increment(1);
        if let Some(held_back) = self.0.pass() {
            let issuer = token.map(|token| shown(&token.issuer)).unwrap_or_default();
            let kid = token.and_then(|token| token.kid.as_deref()).map(shown).unwrap_or_default();
            tracing::info!(reason = error.label(), issuer, kid, held_back, "a token was refused: {error}");
        }
    }
}

/// A text of a stranger, for a line of the log.
fn shown(text: &str) -> String {
    text.escape_default().take(SHOWN).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_strangers_write_is_short_and_harmless_in_a_log() {
        assert_eq!(shown("https://a.example"), "https://a.example");
        assert_eq!(shown("a\r\nb\u{1b}[31m\u{202e}"), r"a\r\nb\u{1b}[31m\u{202e}");
        assert_eq!(shown(&"x".repeat(10_000)).len(), SHOWN);
    }
}
