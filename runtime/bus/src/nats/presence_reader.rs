//! Reads the events of presence of all classrooms, page by page, with one consumer for as long as pages are asked for.
//!
//! Invariant: a page has all events from its beginning to the end that it names. The consumer's own numbers prove that:
//! a message that was dropped on the way leaves a gap in them, and then the page is an error.
use std::time::Duration;

use async_nats::jetstream::consumer::{DeliverPolicy, pull};
use rollcall_schema::{ClassroomId, Offset, Subject};
use time::OffsetDateTime;
use tokio::time::Instant;

use super::{
    next_event::{next_event, read_error},
    read_consumer::{Content, Delivered, ReadConsumer},
    stored_ids::PRESENCE,
    stream,
    work_client::{JetStream, WorkClient},
};
use crate::{
    BusError, Position, PresencePage, PresenceRead,
    presence::{PresenceEvent, presence_event},
};

/// A consumer without a request for this long is not used again. The server forgets it only later.
const REUSED_WITHIN: Duration = Duration::from_secs(5);

/// The reader, with the consumer of the last page.
pub(super) struct PresenceReader {
    client: WorkClient,
    scan: tokio::sync::Mutex<Option<Scan>>,
}

/// A consumer, and how far its stream was read.
struct Scan {
    consumer: ReadConsumer,
    epoch: String,
    /// There are no unread events through this offset.
    read: u64,
    /// The consumer's own number of its last message.
    delivered: u64,
    used: Instant,
}

impl PresenceReader {
    pub(super) fn new(client: WorkClient) -> Self {
        Self { client, scan: tokio::sync::Mutex::default() }
    }

    /// Returns the next events after a position, at most `max`.
    pub(super) async fn read(&self, after: &Position, max: usize) -> Result<PresenceRead, BusError> {
        let jetstream = self.client.jetstream().await?;
        let state = stream::state(&jetstream).await.map_err(read_error)?;
        let Position { epoch, offset: Offset(after) } = after;
        if state.epoch != *epoch || *after > state.last {
            return Ok(PresenceRead::Elsewhere { epoch: state.epoch, last: Offset(state.last) });
        }
        let missing = state.first.saturating_sub(after + 1);
        let read = after + missing;
        let mut page = PresencePage { events: Vec::new(), through: Offset(state.last), more: false, missing };
        if read >= state.last {
            return Ok(PresenceRead::Page(page));
        }
        let mut kept = self.scan.lock().await;
        let usable = |scan: &Scan| scan.read == read && scan.epoch == *epoch && scan.used.elapsed() < REUSED_WITHIN;
        let mut scan = match kept.take().filter(usable) {
            Some(scan) => scan,
            None => Scan::open(&jetstream, epoch, read).await?,
        };
        let (events, end) = scan.fetch(max).await?;
        let end = match end {
            Some(end) => end,
            // No message came, so the server may have forgotten the consumer.
            None => match is_between(&jetstream, read, state.last).await? {
                true => return Err(read_error("it ended early")),
                false => End { read: state.last, more: false },
            },
        };
        // The consumer may be on a server that is behind the leader of the stream.
        let more = end.more || state.replicated && is_between(&jetstream, end.read, state.last).await?;
        page.events = events;
        page.more = more;
        page.through = Offset(if more { end.read } else { end.read.max(state.last) });
        (scan.read, scan.used) = (page.through.0, Instant::now());
        *kept = Some(scan);
        Ok(PresenceRead::Page(page))
    }

    /// Returns the events of one classroom after a position and through an offset, at most `max`.
    pub(super) async fn read_one(
        &self,
        classroom: ClassroomId,
        after: &Position,
        through: Offset,
        max: usize,
    ) -> Result<Vec<PresenceEvent>, BusError> {
        let jetstream = self.client.jetstream().await?;
        let (filter, mut from, mut events) = (Subject::agent(classroom).to_string(), after.offset.0 + 1, Vec::new());
        while events.len() < max && from <= through.0 {
            let Some(next) = next_event(&jetstream, &filter, from).await? else { break };
            from = next.seq + 1;
            if next.seq <= through.0 {
                events.extend(next.presence());
            }
        }
        // If the stream was created again during the reads, some of these events are of the new one.
        stream::check_epoch(&jetstream, &after.epoch).await?;
        Ok(events)
    }
}

/// Returns whether the stream has an event of presence after one offset and through another.
async fn is_between(jetstream: &JetStream, after: u64, through: u64) -> Result<bool, BusError> {
    Ok(after < through && next_event(jetstream, PRESENCE, after + 1).await?.is_some_and(|next| next.seq <= through))
}

/// The end of a page.
struct End {
    read: u64,
    more: bool,
}

impl Scan {
    /// Makes a consumer for the events after an offset. Returns an error if the stream is not the one of this epoch.
    async fn open(jetstream: &JetStream, epoch: &str, read: u64) -> Result<Self, BusError> {
        let wanted = pull::Config {
            deliver_policy: DeliverPolicy::ByStartSequence { start_sequence: read + 1 },
            filter_subject: PRESENCE.to_owned(),
            ..pull::Config::default()
        };
        let consumer = ReadConsumer::open(jetstream, wanted).await?;
        // The consumer ends with its stream, so it reads no other stream than this one.
        stream::check_epoch(jetstream, epoch).await?;
        Ok(Self { consumer, epoch: epoch.to_owned(), read, delivered: 0, used: Instant::now() })
    }

    /// Returns the events that are there now, and the end of the page; no end if no event came.
    async fn fetch(&mut self, max: usize) -> Result<(Vec<PresenceEvent>, Option<End>), BusError> {
        let (mut events, mut end) = (Vec::new(), None);
        for Delivered { offset, number, pending, stored, content } in self.consumer.page(max as u64).await? {
            self.delivered += 1;
            if number != self.delivered {
                return Err(read_error("a message was dropped on the way"));
            }
            end = Some(End { read: offset, more: pending > 0 });
            // The clocks may differ, so an age is never negative.
            let age = (OffsetDateTime::now_utc() - stored).try_into().unwrap_or_default();
            let event = |content: Content| {
                presence_event(&content.subject, content.headers(), offset, age, content.body.clone())
            };
            events.extend(content.and_then(event));
        }
        Ok((events, end))
    }
}

#[cfg(test)]
mod tests {

    use super::*;
    use crate::nats::stream;

    #[tokio::test]
    async fn no_consumer_reads_a_stream_under_the_epoch_of_another() {
        let (_server, work) = WorkClient::with_server().await;
        let jetstream = work.jetstream().await.expect("connected");
        stream::ensure(&jetstream).await.expect("made");
        let epoch = stream::state(&jetstream).await.expect("answered").epoch;
        assert!(Scan::open(&jetstream, &epoch, 0).await.is_ok());
        assert!(Scan::open(&jetstream, "another", 0).await.is_err());
    }
}
