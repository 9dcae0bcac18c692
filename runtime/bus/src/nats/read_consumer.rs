//! Makes consumers that read the stream and acknowledge nothing.
//!
//! Invariant: the server forgets a consumer soon after its last request, even if this node dies.
use std::time::Duration;

use async_nats::jetstream::{
    Message,
    consumer::{AckPolicy, Consumer, pull},
    stream::{ConsumerErrorKind, Stream},
};

use super::{next_event::read_error, refusals, work_client::JetStream};
use crate::BusError;

/// The server forgets a consumer without requests for this long.
const INACTIVE_THRESHOLD: Duration = Duration::from_secs(10);
/// A requested page comes within this time, even from a server that serves ten nodes.
pub(super) const PAGE_TIMEOUT: Duration = Duration::from_secs(5);

/// Makes a consumer. `wanted` says which events it reads, and from which offset.
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

/// Checks whether a consumer can be made.
pub(super) async fn check(jetstream: &JetStream) -> Result<(), BusError> {
    let (stream, consumer) = open(jetstream, pull::Config::default()).await?;
    stream.delete_consumer(&consumer.cached_info().name).await.ok();
    Ok(())
}

/// Returns the headers of a message, as name and value.
pub(super) fn headers(message: &Message) -> impl Iterator<Item = (&str, &str)> {
    let headers = message.headers.iter().flat_map(|headers| headers.iter());
    headers.flat_map(|(name, values)| values.iter().map(move |value| (name.as_ref(), value.as_str())))
}
