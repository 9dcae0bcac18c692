//! The tables: whether they are up to date, and which database they are.
use async_trait::async_trait;
use uuid::Uuid;

use crate::StoreError;

/// The tables of a database.
#[async_trait]
pub trait Schema: Send + Sync {
    /// Brings the tables up to date; where they are, it only reads. Safe while other nodes do the same.
    ///
    /// # Errors
    /// [`StoreError::Refused`] with a sentence for the operator where the tables are too new for this binary, or where
    /// the account may not change them.
    async fn migrate(&self) -> Result<(), StoreError>;
    /// The names of the migrations that are missing. It writes nothing.
    async fn missing_migrations(&self) -> Result<Vec<&'static str>, StoreError>;
    /// What the account lacks to serve, with what to change, in one line.
    async fn missing_rights(&self) -> Result<Option<String>, StoreError> {
        Ok(None)
    }
    /// The UUID that was made with the database. It is part of every message id.
    async fn installation(&self) -> Result<Uuid, StoreError>;
    /// The secret that was made with the database: the nodes of an installation know by it what one of them has signed.
    async fn signing_key(&self) -> Result<Vec<u8>, StoreError>;
}
