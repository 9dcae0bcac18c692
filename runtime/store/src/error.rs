//! Why a call of the store failed.

/// Why a call of the store failed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StoreError {
    /// The database is away, or did not answer in time. Whether a write took place is unknown.
    #[error("the database is away: {0}")]
    Unavailable(String),
    /// Another node took this node's lease: nothing was written, and nothing will be.
    #[error("this node's lease was taken")]
    Fenced,
    /// The database answered, and refused the statement; nothing was written.
    #[error("the database refused: {0}")]
    Refused(String),
}
