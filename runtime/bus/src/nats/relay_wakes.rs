//! Messages between relays, over core NATS: there are new rows in a shard of the outbox.
//!
//! Invariant: nothing waits for them, and none is kept: a relay looks every second in any case. So one that is lost costs
//! time, not events.
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

/// How long writing one to the client's queue may take.
const WRITE_TIMEOUT: Duration = Duration::from_millis(100);

/// How the subjects begin. No installation is called `$probe`, which follows where a probe writes.
pub(super) const PREFIX: &str = "rollcall.wake.";

/// `rollcall.wake.{installation}.{shard}`.
fn subject(installation: Uuid, shard: u8) -> String {
    format!("{PREFIX}{installation}.{shard}")
}

pub(super) async fn tell(client: &Client, installation: Uuid, shards: Shards) {
    for shard in shards.numbers() {
        // The client would keep it until it is connected.
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
