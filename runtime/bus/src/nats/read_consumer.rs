//! Makes consumers that read the stream and acknowledge nothing, each on a connection of its own.
//!
//! A message of another service may have headers that the client library does not accept. The library closes its
//! connection when it reads such a message, and again at each attempt, so nothing after the message could be read.
//!
//! Invariant: the server forgets a consumer soon after its last request, even if this node dies. After an error no more
//! can be read.
use std::time::Duration;

use async_nats::jetstream::{
    consumer::{AckPolicy, Consumer, pull},
    stream::{ConsumerErrorKind, Stream},
};
use bytes::Bytes;
use rollcall_schema::Sid;
use time::OffsetDateTime;
use tokio::time::timeout;

use super::{
    connection::NatsConnection,
    next_event::read_error,
    refusals,
    wire::{self, Message, Op},
    work_client::JetStream,
};
use crate::BusError;

/// The server forgets a consumer without requests for this long.
const INACTIVE_THRESHOLD: Duration = Duration::from_secs(10);
/// A requested page comes within this time, even from a server that serves ten nodes.
const PAGE_TIMEOUT: Duration = Duration::from_secs(5);
/// The beginning of an answer without a message, if there is no message or no further one.
const NO_MORE: [&[u8]; 2] = [b"NATS/1.0 404", b"NATS/1.0 408"];
/// The beginning of an answer that only says that the request still waits.
const HEARTBEAT: &[u8] = b"NATS/1.0 100";

/// A consumer that reads the stream on a connection of its own.
pub(super) struct ReadConsumer {
    stream: Stream<()>,
    consumer: Consumer<pull::Config>,
    connection: NatsConnection,
    /// The subject of requests.
    next: String,
    /// The subject of answers without its last token, which is the request's number.
    inbox: String,
    number: u64,
}

/// A message that the server has delivered.
pub(super) struct Delivered {
    /// The message's number in the stream.
    pub(super) offset: u64,
    /// The message's number among the messages of the consumer.
    pub(super) number: u64,
    /// How many messages for the consumer the stream has after this one.
    pub(super) pending: u64,
    /// When the message was stored.
    pub(super) stored: OffsetDateTime,
    /// The content. `None` if the message is larger than the limit for reads.
    pub(super) content: Option<Content>,
}

/// The content of a message.
pub(super) struct Content {
    pub(super) subject: String,
    head: String,
    pub(super) body: Bytes,
}

impl Content {
    /// Returns the headers, as name and value.
    pub(super) fn headers(&self) -> impl Iterator<Item = (&str, &str)> {
        wire::headers(&self.head)
    }
}

impl ReadConsumer {
    /// Makes a consumer. `wanted` says which events it reads, and from which offset.
    pub(super) async fn open(jetstream: &JetStream, wanted: pull::Config) -> Result<Self, BusError> {
        let (stream, consumer) = create(jetstream, wanted).await?;
        let mut connection = jetstream.open("rollcall read").await?;
        let inbox = format!("_INBOX.{}.", Sid::random());
        connection.write(format!("SUB {inbox}* 1\r\n").as_bytes()).await.map_err(read_error)?;
        let next = format!("{}.{}", jetstream.options().api("CONSUMER.MSG.NEXT"), consumer.cached_info().name);
        Ok(Self { stream, consumer, connection, next, inbox, number: 0 })
    }

    /// Returns how many messages the stream had for the consumer when it was made.
    pub(super) fn pending(&self) -> u64 {
        self.consumer.cached_info().num_pending
    }

    /// Returns the offset after which the consumer began.
    pub(super) fn began(&self) -> u64 {
        self.consumer.cached_info().delivered.stream_sequence
    }

    /// Returns the next messages, at most `max`. There are fewer only if the server has no more of them now.
    pub(super) async fn page(&mut self, max: u64) -> Result<Vec<Delivered>, BusError> {
        timeout(PAGE_TIMEOUT, self.fetch(max)).await.unwrap_or_else(|_| Err(read_error("no answer in time")))
    }

    async fn fetch(&mut self, max: u64) -> Result<Vec<Delivered>, BusError> {
        self.number += 1;
        let (inbox, body) = (format!("{}{}", self.inbox, self.number), format!(r#"{{"batch":{max},"no_wait":true}}"#));
        let request = format!("PUB {} {inbox} {}\r\n{body}\r\n", self.next, body.len());
        self.connection.write(request.as_bytes()).await.map_err(read_error)?;
        let mut page = Vec::new();
        while (page.len() as u64) < max {
            let mut pinged = false;
            while let Some(op) = self.connection.next().map_err(read_error)? {
                match op {
                    Op::Message(message) if message.subject != inbox => page.extend(delivered(&message)),
                    Op::Message(Message { head, .. }) if NO_MORE.iter().any(|said| head.starts_with(said)) => {
                        return Ok(page);
                    }
                    Op::Message(Message { head, .. }) if head.starts_with(HEARTBEAT) => {}
                    Op::Message(Message { head: said, .. }) | Op::Error(said) => {
                        return Err(read_error(String::from_utf8_lossy(said).trim()));
                    }
                    Op::Dropped(reply) => page.extend(place(reply)),
                    Op::Ping => pinged = true,
                    Op::Pong | Op::Info(_) | Op::Ok => {}
                }
            }
            if pinged {
                self.connection.write(b"PONG\r\n").await.map_err(read_error)?;
            }
            if (page.len() as u64) < max {
                self.connection.read().await.map_err(read_error)?;
            }
        }
        Ok(page)
    }

    /// Deletes the consumer. The server would forget the consumer anyway, so an error does not matter.
    pub(super) async fn close(&self) {
        self.stream.delete_consumer(&self.consumer.cached_info().name).await.ok();
    }
}

async fn create(jetstream: &JetStream, wanted: pull::Config) -> Result<(Stream<()>, Consumer<pull::Config>), BusError> {
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
    let (stream, consumer) = create(jetstream, pull::Config::default()).await?;
    stream.delete_consumer(&consumer.cached_info().name).await.ok();
    Ok(())
}

fn delivered(message: &Message<'_>) -> Option<Delivered> {
    let content = Content {
        subject: message.subject.to_owned(),
        // The publisher wrote the headers. A header that is not UTF-8 is none that the gateway reads.
        head: String::from_utf8_lossy(message.head).into_owned(),
        body: Bytes::copy_from_slice(message.body),
    };
    Some(Delivered { content: Some(content), ..place(message.reply)? })
}

/// Reads where a message is in the stream from the subject for its acknowledgement:
/// `$JS.ACK.[domain.account.]stream.consumer.deliveries.offset.number.nanoseconds.pending`, perhaps with one more token.
fn place(reply: &str) -> Option<Delivered> {
    let tokens: Vec<&str> = reply.strip_prefix("$JS.ACK.")?.split('.').collect();
    let places = if tokens.len() > 7 { tokens.get(2..9)? } else { tokens.get(..7)? };
    let number = |place: usize| places[place].parse::<u64>().ok();
    let stored = OffsetDateTime::from_unix_timestamp_nanos(places[5].parse().ok()?).ok()?;
    Some(Delivered { offset: number(3)?, number: number(4)?, pending: number(6)?, stored, content: None })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_of_a_place_are_read() {
        let short = "$JS.ACK.CLASSROOM.reader.1.12.3.1700000000000000000.9";
        let long = "$JS.ACK.hub.ACCOUNT.CLASSROOM.reader.1.12.3.1700000000000000000.9";
        for reply in [short.to_owned(), long.to_owned(), format!("{long}.token")] {
            let place = place(&reply).expect("a place");
            assert_eq!((place.offset, place.number, place.pending), (12, 3, 9));
            assert_eq!(place.stored.unix_timestamp(), 1_700_000_000);
        }
        for reply in ["", "_INBOX.a.1", "$JS.ACK.CLASSROOM.reader.1.12.3.1", "$JS.ACK.a.b.c.d.e.f.g.h"] {
            assert!(place(reply).is_none(), "{reply}");
        }
    }
}
