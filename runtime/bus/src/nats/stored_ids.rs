//! Which of some message ids the stream holds already.
//!
//! The server remembers a message id for two minutes only, so a relay looks before it publishes an older event.
//!
//! Invariant: memory holds one page of headers, whatever the stream holds; what the server leaves out is an error.
use std::{
    collections::HashSet,
    time::{Duration, SystemTime},
};

use async_nats::{
    Client,
    jetstream::{
        self,
        consumer::{AckPolicy, DeliverPolicy, pull},
    },
};
use futures_util::StreamExt;
use rollcall_schema::header::NATS_MSG_ID;
use tokio::time::timeout;

use super::{
    CALL_TIMEOUT,
    next_event::read_error,
    stream::{self, NAME},
};
use crate::BusError;

/// Events of presence in all classrooms.
pub(super) const PRESENCE: &str = "classroom.*.agent";
/// Messages in one request, without their bodies.
const PAGE_SIZE: u64 = 1_000;
/// A page comes within this time.
const PAGE_TIMEOUT: Duration = Duration::from_secs(5);
/// The server forgets a consumer that asks for nothing for this long.
const INACTIVE_THRESHOLD: Duration = Duration::from_secs(10);
/// By how much the clocks of the database, this machine and NATS may differ.
const MAX_CLOCK_DIFFERENCE: Duration = Duration::from_secs(60);

/// Those of `wanted` that were stored within `age`, and are still there.
pub(super) async fn find(
    client: &Client,
    wanted: &HashSet<String>,
    age: Duration,
) -> Result<HashSet<String>, BusError> {
    let end = stream::state(client).await.map_err(read_error)?.last;
    let mut context = jetstream::new(client.clone());
    context.set_timeout(CALL_TIMEOUT);
    let since = SystemTime::now().checked_sub(age + MAX_CLOCK_DIFFERENCE).unwrap_or(SystemTime::UNIX_EPOCH);
    let config = pull::Config {
        deliver_policy: DeliverPolicy::ByStartTime { start_time: since.into() },
        ack_policy: AckPolicy::None,
        filter_subject: PRESENCE.to_owned(),
        headers_only: true,
        inactive_threshold: INACTIVE_THRESHOLD,
        memory_storage: true,
        num_replicas: 1,
        ..pull::Config::default()
    };
    let stream = context.get_stream_no_info(NAME).await.map_err(read_error)?;
    let consumer = stream.create_consumer(config).await.map_err(read_error)?;
    let (mut pending, mut read) = (consumer.cached_info().num_pending, 0);
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
    // The server would forget it anyway.
    stream.delete_consumer(&consumer.cached_info().name).await.ok();
    Ok(found)
}
