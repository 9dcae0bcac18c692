//! Tells the operator why tokens are refused, with a metric and with log lines at a limited rate.
//!
//! Invariant: only a token's issuer and the name of its key are logged. They are cut and written without control
//! characters, because neither was checked.
use super::{AuthError, token::Unchecked};
use rollcall_base::{log_limit::LogLimit, names};

/// How many characters of an issuer or of a key's name are logged.
const SHOWN: usize = 100;

/// Counts and logs refused tokens.
#[derive(Debug)]
pub(super) struct Refusals(LogLimit);

impl Refusals {
    pub(super) fn new() -> Self {
        Self(LogLimit::new())
    }

    /// Records that a token was refused. `token` is the token if it could be parsed.
    pub(super) fn record(&self, error: AuthError, token: Option<&Unchecked<'_>>) {
        metrics::counter!(names::TOKENS_REFUSED, "reason" => error.label()).increment(1);
        if let Some(held_back) = self.0.pass() {
            let issuer = token.map(|token| shown(&token.issuer)).unwrap_or_default();
            let kid = token.and_then(|token| token.kid.as_deref()).map(shown).unwrap_or_default();
            tracing::info!(reason = error.label(), issuer, kid, held_back, "a token was refused: {error}");
        }
    }
}

/// Makes the text of a client safe for the log.
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
