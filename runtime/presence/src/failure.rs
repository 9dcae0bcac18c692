//! Why a task that uses SQL and Redis must try again.
use rollcall_keys::KeysError;
use rollcall_store::StoreError;

/// An error of one of the two stores.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Keys(#[from] KeysError),
}
