//! Why the bus does not start, in one line that says what to change.
//!
//! Invariant: no error contains a part of NATS_URL before its host, or of the credentials.

/// Why the bus did not start.
#[derive(Clone, Debug, thiserror::Error)]
pub enum NatsError {
    /// NATS_URL cannot be parsed.
    #[error("NATS_URL is not a nats:// or tls:// URL, or several separated by commas")]
    Url,
    /// No server answers.
    #[error("NATS does not answer: {0}")]
    Away(String),
    /// The server refuses these credentials.
    #[error("NATS refuses {0}: correct it, or add it on the server")]
    Refused(&'static str),
    /// The credentials cannot be used.
    #[error("ROLLCALL_NATS_CREDS: {0}")]
    Credentials(&'static str),
    /// The TLS handshake failed.
    #[error("TLS with NATS: {0}")]
    Tls(String),
    /// JetStream is not enabled.
    #[error(
        "this NATS server has no JetStream for this account: start it with --jetstream, or enable it in the account"
    )]
    NoJetStream,
    /// The stream exists with settings that break a guarantee.
    #[error("the stream {stream} has other settings: {}; change them, or name another stream in ROLLCALL_STREAM", differences.join("; "))]
    Settings {
        /// The stream's name.
        stream: String,
        /// The settings that differ.
        differences: Vec<String>,
    },
    /// JetStream refuses to make the stream, or to read it.
    #[error("{0}")]
    Stream(String),
    /// The user lacks a right.
    #[error("{0}")]
    Rights(String),
}

impl NatsError {
    /// Returns what to change, if the error's text does not say it.
    #[must_use]
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Away(_) => "start it with JetStream (-js), or set NATS_URL to where it is, or unset it",
            _ => "then start again; `rollcall check` tries it without serving anybody",
        }
    }
}
