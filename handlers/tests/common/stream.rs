//! What a test sees of the stream in JetStream.

use std::collections::BTreeMap;
use std::time::Duration;

use async_nats::HeaderMap;
use async_nats::jetstream::{self, consumer};
use futures_util::StreamExt;

use super::{Backend, SOON, until};

/// A message in the stream.
#[derive(Debug, Clone)]
pub(crate) struct Stored {
    pub(crate) subject: String,
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: String,
}

impl Stored {
    /// Returns a header's value; empty if the message has no such header.
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }

    /// Returns the message id.
    pub(crate) fn id(&self) -> &str {
        self.header("Nats-Msg-Id")
    }
}

/// A connection to NATS.
pub(crate) struct Stream {
    context: jetstream::Context,
}

impl Stream {
    pub(crate) async fn of(url: &str) -> Self {
        Self { context: jetstream::new(async_nats::connect(url).await.unwrap()) }
    }

    /// Returns every message that the stream holds now on a subject (which may have wildcards), in the stream's order.
    pub(crate) async fn messages(&self, subject: &str) -> Vec<Stored> {
        let stream = self.context.get_stream("CLASSROOM").await.unwrap();
        let mut consumer = stream
            .create_consumer(consumer::pull::Config {
                filter_subject: subject.to_owned(),
                ack_policy: consumer::AckPolicy::None,
                inactive_threshold: Duration::from_secs(30),
                ..Default::default()
            })
            .await
            .unwrap();
        let pending = usize::try_from(consumer.info().await.unwrap().num_pending).unwrap();
        if pending == 0 {
            return Vec::new();
        }
        let messages = consumer.fetch().max_messages(pending).expires(SOON).messages().await.unwrap();
        let messages: Vec<_> = messages.take(pending).map(|message| stored(&message.unwrap())).collect().await;
        assert_eq!(messages.len(), pending, "the stream gave what it holds");
        messages
    }

    /// Waits until a subject has this many messages, and returns them.
    pub(crate) async fn wait_for(&self, subject: &str, count: usize) -> Vec<Stored> {
        until(subject, SOON, async || self.messages(subject).await, |messages| messages.len() >= count).await
    }

    /// Publishes as another service does, and returns when the stream has stored the message.
    pub(crate) async fn publish(&self, subject: &str, headers: &[(&'static str, &str)], body: &str) {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.insert(*name, *value);
        }
        let sent = self.context.publish_with_headers(subject.to_owned(), map, body.to_owned().into()).await;
        sent.unwrap().await.unwrap();
    }

    /// Returns the stream's configuration.
    pub(crate) async fn config(&self) -> jetstream::stream::Config {
        self.context.get_stream("CLASSROOM").await.unwrap().cached_info().config.clone()
    }
}

impl Backend {
    /// Waits until the stream holds this many messages on an agent event's subject, and returns them. Returns `None`
    /// for an embedded gateway, whose bus a test cannot read.
    pub(crate) async fn stored(&self, subject: &str, count: usize) -> Option<Vec<Stored>> {
        match self.stream().await {
            Some(stream) => Some(stream.wait_for(subject, count).await),
            None => None,
        }
    }
}

fn stored(message: &jetstream::Message) -> Stored {
    let headers = message.headers.iter().flat_map(HeaderMap::iter);
    let headers = headers.map(|(name, values)| {
        let values: Vec<_> = values.iter().map(|value| value.as_str()).collect();
        (name.to_string(), values.join(", "))
    });
    Stored {
        subject: message.subject.to_string(),
        headers: headers.collect(),
        body: String::from_utf8_lossy(&message.payload).into_owned(),
    }
}
