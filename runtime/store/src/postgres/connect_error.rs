//! Why no connection could be made, in words for an operator.
use tokio_postgres::Error;

use super::{advice::advice, statement_error::text};
use crate::StoreError;

/// Why an address refused the connection.
pub(super) struct Refusal {
    pub(super) why: String,
    /// What to change, if that is known.
    pub(super) advice: Option<String>,
}

/// No host of the URL accepted a connection.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{why}")]
pub struct ConnectError {
    /// The answer of each address.
    pub why: String,
    /// What to change. `None` if the servers may only be away.
    pub advice: Option<String>,
}

impl ConnectError {
    /// Creates an error without advice.
    pub(super) fn plain(why: impl Into<String>) -> Self {
        Self { why: why.into(), advice: None }
    }

    /// Creates an error from the answers of all addresses. If there are none, there is no address.
    pub(super) fn of(refusals: Vec<Refusal>) -> Self {
        if refusals.is_empty() {
            let advice = Some("write postgres://USER:PASSWORD@HOST/DATABASE".to_owned());
            return Self { why: "DATABASE_URL names no host".to_owned(), advice };
        }
        let mut advice: Vec<_> = refusals.iter().filter_map(|refusal| refusal.advice.clone()).collect();
        // Each host of a cluster has the same advice.
        advice.dedup();
        let why: Vec<_> = refusals.into_iter().map(|refusal| refusal.why).collect();
        Self { why: why.join("; "), advice: Some(advice.join("; ")).filter(|advice| !advice.is_empty()) }
    }

    /// Returns the error of a call that waits for a connection. The cause may be removed while this process runs, so
    /// the error counts as temporary.
    pub(super) fn unavailable(self) -> StoreError {
        StoreError::Unavailable(match self.advice {
            Some(advice) => format!("{}: {advice}", self.why),
            None => self.why,
        })
    }
}

impl Refusal {
    /// Creates a text without advice.
    pub(super) fn plain(why: impl Into<String>) -> Self {
        Self { why: why.into(), advice: None }
    }

    /// Creates an error from the refusals if both attempts at one address failed.
    pub(super) fn both(first: &Error, second: &Error) -> Self {
        let (first, second) = (Self::from(first), Self::from(second));
        if first.why == second.why {
            return first;
        }
        Self { why: format!("{}; and once more: {}", first.why, second.why), advice: first.advice.or(second.advice) }
    }
}

impl From<&Error> for Refusal {
    fn from(error: &Error) -> Self {
        Self { why: text(error), advice: advice(error) }
    }
}
