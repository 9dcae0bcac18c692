//! Why a node or a command does not start, as the operator reads it.

/// What is wrong, why, and what to change.
#[derive(Debug, thiserror::Error)]
#[error("{what}: {why}\n  {hint}")]
pub struct StartError {
    /// The part that failed, with its address.
    pub what: String,
    /// The part's own error.
    pub why: String,
    /// What to change.
    pub hint: &'static str,
}

impl StartError {
    /// For `map_err`.
    pub fn at<E: std::fmt::Display>(what: impl Into<String>, hint: &'static str) -> impl FnOnce(E) -> Self {
        let what = what.into();
        move |error| Self { what, why: error.to_string(), hint }
    }
}
