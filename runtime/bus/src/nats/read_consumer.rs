//! A consumer that reads the stream and acknowledges nothing.
//!
//! Invariant: the server forgets it soon after its last request, whatever becomes of this node.
use std::time::Duration;

use async_nats::{
    Client,
    jetstream::{
        self, Message,
        consumer::{AckPolicy, Consumer, pull},
        stream::Stream,
    },
};

use super::{CALL_TIMEOUT, next_event::read_error, stream::NAME};
use crate::BusError;

/// The server forgets a consumer that asks for nothing for this long.
const INACTIVE_THRESHOLD: Duration = Duration::from_secs(10);
/// What is asked for comes within this time, even from a server that answers ten nodes.
pub(super) const PAGE_TIMEOUT: Duration = Duration::from_secs(5);

/// Opens one; `wanted` says what it reads, and from where.
pub(super) async fn open(
    client: &Client,
    wanted: pull::Config,
) -> Result<(Stream<()>, Consumer<pull::Config>), BusError> {
    let mut context = jetstream::new(client.clone());
    context.set_timeout(CALL_TIMEOUT);
    let config = pull::Config {
        ack_policy: AckPolicy::None,
        inactive_threshold: INACTIVE_THRESHOLD,
        memory_storage: true,
        num_replicas: 1,
        ..wanted
    };
    let stream = context.get_stream_no_info(NAME).await.map_err(read_error)?;
    let consumer = stream.create_consumer(config).await.map_err(read_error)?;
    Ok((stream, consumer))
}

/// A message's headers, name and value.
pub(super) fn headers(message: &Message) -> impl Iterator<Item = (&str, &str)> {
    let headers = message.headers.iter().flat_map(|headers| headers.iter());
    headers.flat_map(|(name, values)| values.iter().map(move |value| (name.as_ref(), value.as_str())))
}
