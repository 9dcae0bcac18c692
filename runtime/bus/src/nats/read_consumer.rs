//! A consumer that reads the stream and acknowledges nothing.
//!
//! Invariant: the server forgets it soon after its last request, whatever becomes of this node.
use std::time::Duration;

use async_nats::jetstream::{
    Message,
    consumer::{AckPolicy, Consumer, pull},
    stream::{ConsumerErrorKind, Stream},
};

use super::{next_event::read_error, refusals, work_client::JetStream};
use crate::BusError;

/// The server forgets a consumer that asks for nothing for this long.
const INACTIVE_THRESHOLD: Duration = Duration::from_secs(10);
/// What is asked for comes within this time, even from a server that answers ten nodes.
pub(super) const PAGE_TIMEOUT: Duration = Duration::from_secs(5);

/// Opens one; `wanted` says what it reads, and from where.
pub(super) async fn open(
    jetstream: &JetStream,
    wanted: pull::Config,
) -> Result<(Stream<()>, Consumer<pull::Config>), BusError> {
    let config = pull::Config {
        ack_policy: AckPolicy::None,
        inactive_threshold: INACTIVE_THRESHOLD,
        memory_storage: true,
        num_replicas: 1,
        ..wanted
    };
    let stream = jetstream.context().get_stream_no_info(&jetstream.options().stream.name).await.map_err(read_error)?;
    let consumer = stream.create_consumer(config).await.map_err(|error| match error.kind() {
        ConsumerErrorKind::JetStream(error) => read_error(refusals::explain(error.error_code().0, &error.to_string())),
        _ => read_error(error),
    })?;
    Ok((stream, consumer))
}

/// Whether one can be opened.
pub(super) async fn check(jetstream: &JetStream) -> Result<(), BusError> {
    let (stream, consumer) = open(jetstream, pull::Config::default()).await?;
    stream.delete_consumer(&consumer.cached_info().name).await.ok();
    Ok(())
}

/// A message's headers, name and value.
pub(super) fn headers(message: &Message) -> impl Iterator<Item = (&str, &str)> {
    let headers = message.headers.iter().flat_map(|headers| headers.iter());
    headers.flat_map(|(name, values)| values.iter().map(move |value| (name.as_ref(), value.as_str())))
}
