//! Messages between relays over core NATS that say which shards of the outbox have new rows.
//!
//! Invariant: no task waits for these messages, and none is kept, because a relay reads its shards every second in any
//! case. So a lost message costs time, and no event.
use std::time::Duration;

use async_nats::{Client, connection::State};
use bytes::Bytes;
use futures_util::{
    StreamExt,
    stream::{BoxStream, pending, select_all},
};
use rollcall_schema::Shards;
use tokio::time::timeout;
use uuid::Uuid;

use super::CALL_TIMEOUT;
use crate::BusError;

/// How long it may take to hand a message to the client library.
const WRITE_TIMEOUT: Duration = Duration::from_millis(100);

/// The beginning of the subjects. No installation has the name `$probe`, to which a probe writes.
pub(super) const PREFIX: &str = "rollcall.wake.";

/// Returns the subject `rollcall.wake.{installation}.{shard}`.
fn subject(installation: Uuid, shard: u8) -> String {
    format!("{PREFIX}{installation}.{shard}")
}

pub(super) async fn tell(client: &Client, installation: Uuid, shards: Shards) {
    for shard in shards.numbers() {
        // The client library would keep the message until it is connected.
        if client.connection_state() != State::Connected {
            return;
        }
        let published = client.publish(subject(installation, shard), Bytes::new());
        if !matches!(timeout(WRITE_TIMEOUT, published).await, Ok(Ok(()))) {
            return;
        }
    }
}

pub(super) async fn listen(
    client: &Client,
    installation: Uuid,
    shards: Shards,
) -> Result<BoxStream<'static, Shards>, BusError> {
    if shards.is_empty() {
        return Ok(pending().boxed());
    }
    let mut subscriptions = Vec::new();
    for shard in shards.numbers() {
        let subscribed = timeout(CALL_TIMEOUT, client.subscribe(subject(installation, shard))).await;
        let messages = subscribed.map_err(|_| BusError("no answer in time".to_owned()))?;
        let messages = messages.map_err(|error| BusError(error.to_string()))?;
        subscriptions.push(messages.map(move |_| Shards::one(shard)));
    }
    Ok(select_all(subscriptions).boxed())
}
