//! The tables: whether they are up to date, and to which database they belong.
use async_trait::async_trait;
use uuid::Uuid;

use crate::StoreError;

/// The tables of a database.
#[async_trait]
pub trait Schema: Send + Sync {
    /// Brings the tables up to date. If they are, it only reads. Other nodes may do the same at the same time.
    ///
    /// # Errors
    /// Returns [`StoreError::Refused`] with a sentence for the operator if the tables are too new for this binary, or
    /// the account may not change them.
    async fn migrate(&self) -> Result<(), StoreError>;
    /// Returns the names of the missing migrations. The call writes nothing.
    async fn missing_migrations(&self) -> Result<Vec<&'static str>, StoreError>;
    /// Returns the rights that the account lacks to serve, and what to change, in one line.
    async fn missing_rights(&self) -> Result<Option<String>, StoreError> {
        Ok(None)
    }
    /// Returns the UUID that was made with the database. It is part of every message id.
    async fn installation(&self) -> Result<Uuid, StoreError>;
    /// Returns the secret that was made with the database. With it the nodes of an installation recognise what one of
    /// them has signed.
    async fn signing_key(&self) -> Result<Vec<u8>, StoreError>;
}
