//! `POST erase` removes the data of a user.
use hyper::StatusCode;
use rollcall_presence::operator::{EraseError, Erased};
use rollcall_schema::UserId;
use serde::{Deserialize, Serialize};

use crate::http::{
    admin::Admin,
    call::Call,
    reply::{HttpError, Reply, json},
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Erase {
    user_id: UserId,
}

#[derive(Serialize)]
struct Counts {
    sessions: u64,
    history: u64,
    attended: u64,
}

/// Erases the user's data, and counts what it removed. A second call for the same user removes nothing.
pub(super) async fn erase(admin: &Admin, call: &Call<'_>) -> Result<Reply, HttpError> {
    let Erase { user_id } = call.json("{\"user_id\": TEXT}")?;
    call.audit.of(format!("user {user_id}"));
    let Erased { sessions, history, attended } = admin.operator.erase(&user_id).await.map_err(|error| match error {
        EraseError::Store(error) => admin.refusal(&error),
        EraseError::Keys(error) => {
            tracing::warn!(%error, "a request to the API failed");
            HttpError::away("the key store")
        }
    })?;
    Ok(json(StatusCode::OK, &Counts { sessions, history, attended }))
}
