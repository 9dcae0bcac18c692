//! Why a call of the store failed.

/// Why a call of the store failed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StoreError {
    /// The database is away, or did not answer in time. A write may have happened or not.
    #[error("the database is away: {0}")]
    Unavailable(String),
    /// Too many requests wait for the database. Nothing was or will be written.
    #[error("too many requests wait for the database")]
    Overloaded,
    /// Another node took this node's lease. Nothing was or will be written.
    #[error("this node's lease was taken")]
    Fenced,
    /// The database refused the statement. Nothing was written.
    #[error("the database refused: {0}")]
    Refused(String),
}

impl StoreError {
    /// Returns whether nothing was and nothing will be written.
    #[must_use]
    pub fn wrote_nothing(&self) -> bool {
        match self {
            Self::Unavailable(_) => false,
            Self::Overloaded | Self::Fenced | Self::Refused(_) => true,
        }
    }
}
