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
use futures_util::StreamExt;
use rollcall_schema::header::NATS_MSG_ID;
use tokio::time::timeout;

use super::{
    next_event::{next_event, read_error},
    read_consumer::{self, PAGE_TIMEOUT},
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
    let (stream, consumer) = read_consumer::open(jetstream, wanted_messages).await?;
    let info = consumer.cached_info();
    let (mut pending, mut read) = (info.num_pending, info.delivered.stream_sequence);
    let mut found = HashSet::new();
    while pending > 0 && read < end && found.len() < wanted.len() {
        let page = async {
            let mut left = pending.min(PAGE_SIZE);
            let messages = consumer.fetch().max_messages(left as usize).messages();
            let mut messages = messages.await.map_err(read_error)?;
            while let Some(message) = messages.next().await {
                let message = message.map_err(read_error)?;
                let info = message.info().map_err(read_error)?;
                (read, pending, left) = (info.stream_sequence, info.pending, left - 1);
                let id = message.headers.as_ref().and_then(|headers| headers.get(NATS_MSG_ID));
                found.extend(id.and_then(|id| wanted.get(id.as_str())).cloned());
            }
            if left > 0 { Err(read_error("it ended early")) } else { Ok(()) }
        };
        timeout(PAGE_TIMEOUT, page).await.unwrap_or_else(|_| Err(read_error("no answer in time")))?;
    }
    // The server would forget the consumer anyway, so an error does not matter.
    stream.delete_consumer(&consumer.cached_info().name).await.ok();
    // The consumer may be on a server that is behind the leader of the stream.
    if state.replicated && read < end && found.len() < wanted.len() {
        let next = next_event(jetstream, PRESENCE, read + 1).await?;
        if next.is_some_and(|next| next.seq <= end) {
            return Err(read_error("it ended early"));
        }
    }
    Ok(found)
}
