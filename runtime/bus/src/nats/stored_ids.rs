//! Finds out which of some message ids the stream holds already.
//!
//! The server remembers a message id for two minutes only, so a relay asks before it publishes an older event.
//!
//! Invariant: memory holds one page of headers, however long the stream is. If the server leaves a message out, the
//! result is an error.
use std::{
    collections::HashSet,
    time::{Duration, SystemTime},
};

use async_nats::jetstream::consumer::{DeliverPolicy, pull};
use rollcall_schema::header::NATS_MSG_ID;

use super::{
    next_event::{next_event, read_error},
    read_consumer::{Delivered, ReadConsumer},
    stream,
    work_client::JetStream,
};
use crate::BusError;

/// The filter for events of presence in all classrooms.
pub(super) const PRESENCE: &str = "classroom.*.agent";
/// The number of messages in one request, which come without their bodies.
const PAGE_SIZE: u64 = 1_000;
/// How much the clocks of the database, this machine and NATS may differ.
const MAX_CLOCK_DIFFERENCE: Duration = Duration::from_secs(60);

/// Returns which of `wanted` were stored within `age` and are still there.
pub(super) async fn find(
    jetstream: &JetStream,
    wanted: &HashSet<String>,
    age: Duration,
) -> Result<HashSet<String>, BusError> {
    let state = stream::state(jetstream).await.map_err(read_error)?;
    let end = state.last;
    let since = SystemTime::now().checked_sub(age + MAX_CLOCK_DIFFERENCE).unwrap_or(SystemTime::UNIX_EPOCH);
    let wanted_messages = pull::Config {
        deliver_policy: DeliverPolicy::ByStartTime { start_time: since.into() },
        filter_subject: PRESENCE.to_owned(),
        headers_only: true,
        ..pull::Config::default()
    };
    let mut consumer = ReadConsumer::open(jetstream, wanted_messages).await?;
    let (mut pending, mut read) = (consumer.pending(), consumer.began());
    let mut found = HashSet::new();
    while pending > 0 && read < end && found.len() < wanted.len() {
        let asked = pending.min(PAGE_SIZE);
        let page = consumer.page(asked).await?;
        if (page.len() as u64) < asked {
            return Err(read_error("it ended early"));
        }
        for Delivered { offset, pending: left, content, .. } in page {
            (read, pending) = (offset, left);
            let mut headers = content.iter().flat_map(|content| content.headers());
            let id = headers.find(|(name, _)| *name == NATS_MSG_ID);
            found.extend(id.and_then(|(_, id)| wanted.get(id)).cloned());
        }
    }
    consumer.close().await;
    // The consumer may be on a server that is behind the leader of the stream.
    if state.replicated && read < end && found.len() < wanted.len() {
        let next = next_event(jetstream, PRESENCE, read + 1).await?;
        if next.is_some_and(|next| next.seq <= end) {
            return Err(read_error("it ended early"));
        }
    }
    Ok(found)
}
