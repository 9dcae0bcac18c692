//! The error of a node or a command that does not start, in a form for the operator.
use std::borrow::Cow;

/// What is wrong, why, and what to change.
#[derive(Debug, thiserror::Error)]
#[error("{what}: {why}\n  {hint}")]
pub struct StartError {
    /// The part that failed, with its address.
    pub what: String,
    /// The part's own error.
    pub why: String,
    /// What to change.
    pub hint: Cow<'static, str>,
}

impl StartError {
    /// Returns a function for `map_err`.
    pub fn at<E: std::fmt::Display>(
        what: impl Into<String>,
        hint: impl Into<Cow<'static, str>>,
    ) -> impl FnOnce(E) -> Self {
        let (what, hint) = (what.into(), hint.into());
        move |error| Self { what, why: error.to_string(), hint }
    }
}
