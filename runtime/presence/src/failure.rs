//! Why a task that works on both stores is to try again.
use rollcall_keys::KeysError;
use rollcall_store::StoreError;

/// See the module.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Keys(#[from] KeysError),
}
