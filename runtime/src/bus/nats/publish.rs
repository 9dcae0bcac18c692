//! Publishing: in order, with many acknowledgements under way.
//!
//! Invariant: Ok means stored. What failed may have been stored all the same, so it is published again under the same
//! message id.
use async_nats::{
    Client, HeaderMap,
    connection::State,
    jetstream::{self, message::PublishMessage},
};
use rollcall_schema::{Offset, header};
use tokio::time::{Instant, timeout_at};

use super::ANSWER;
use crate::{
    bus::{BusError, Publication},
    names,
};

/// Messages without an acknowledgement yet, of all callers.
const UNDER_WAY: usize = 16 * 1024;

pub(super) struct Publisher {
    client: Client,
    context: jetstream::Context,
}

impl Publisher {
    pub(super) fn new(client: Client) -> Self {
        let builder = jetstream::context::ContextBuilder::new().timeout(ANSWER).ack_timeout(ANSWER);
        Self { context: builder.max_ack_inflight(UNDER_WAY).build(client.clone()), client }
    }

    /// A result for each, in order.
    pub(super) async fn publish(&self, batch: Vec<Publication>) -> Vec<Result<Offset, BusError>> {
        let deadline = Instant::now() + ANSWER;
        let mut under_way = Vec::with_capacity(batch.len());
        for publication in batch {
            under_way.push(self.send(publication, deadline).await);
        }
        let mut results = Vec::with_capacity(under_way.len());
        for sent in under_way {
            let result = match sent {
                Ok(acknowledgement) => timeout_at(deadline, acknowledgement.into_future()).await.map_err(late),
                Err(error) => Err(error),
            };
            let result = result.and_then(|stored| stored.map_err(|error| BusError(error.to_string())));
            results.push(result.map(|stored| Offset(stored.sequence)));
        }
        let failed = results.iter().filter(|result| result.is_err()).count();
        if failed > 0 {
            let errors = metrics::counter!(names::BACKEND_ERRORS, "backend" => "nats", "operation" => "publish");
            errors.increment(failed as u64);
        }
        results
    }

    async fn send(
        &self,
        publication: Publication,
        deadline: Instant,
    ) -> Result<jetstream::context::PublishAckFuture, BusError> {
        // The process stood still: another node may have published what follows. A timeout tries once, however late.
        if Instant::now() >= deadline {
            return Err(late(()));
        }
        // The library would keep it and send it at an unknown time.
        if self.client.connection_state() != State::Connected {
            return Err(BusError("not connected".to_owned()));
        }
        let mut headers = HeaderMap::new();
        if let Some(id) = publication.message_id {
            headers.insert(header::NATS_MSG_ID, id);
        }
        for (name, value) in publication.headers {
            headers.insert(name, value);
        }
        let message = PublishMessage::build().headers(headers).payload(publication.body);
        let sent = timeout_at(deadline, self.context.send_publish(publication.subject.to_string(), message)).await;
        sent.map_err(late)?.map_err(|error| BusError(error.to_string()))
    }
}

fn late<E>(_: E) -> BusError {
    BusError("no acknowledgement in time".to_owned())
}
