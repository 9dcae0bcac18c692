//! Why a call of the store failed.

/// Why a call of the store failed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StoreError {
    /// The database is away, or did not answer in time. Whether a write took place is unknown.
    #[error("the database is away: {0}")]
    Unavailable(String),
    /// Too many requests wait for the database: nothing was written, and nothing will be.
    #[error("too many requests wait for the database")]
    Overloaded,
    /// Another node took this node's lease: nothing was written, and nothing will be.
    #[error("this node's lease was taken")]
    Fenced,
    /// The database answered, and refused the statement; nothing was written.
    #[error("the database refused: {0}")]
    Refused(String),
}

impl StoreError {
    /// Whether nothing was written, and nothing will be.
    #[must_use]
    pub fn wrote_nothing(&self) -> bool {
        match self {
            Self::Unavailable(_) => false,
            Self::Overloaded | Self::Fenced | Self::Refused(_) => true,
        }
    }
}
