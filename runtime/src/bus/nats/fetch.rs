//! Reading events of several rooms out of the stream, in order.
//!
//! A server of version 2.9 filters by one subject at a time, so each room is read by itself, event after event, and the
//! rooms are merged in windows of offsets. Rooms are read side by side; a room without events in a window costs nothing.
//!
//! Invariant: memory holds one window and at most one event more for each room, whatever the stream holds.
use async_nats::Client;
use base64::{Engine, engine::general_purpose::STANDARD};
use futures_util::{StreamExt, TryStreamExt, stream};
use rollcall_schema::{Offset, RoomId};
use serde::Deserialize;

use super::{stream::NAME, wire};
use crate::bus::{BusError, Incoming, heading};

/// Requests of one reading that are under way at once.
const AT_ONCE: usize = 32;
/// Offsets in a window: few at first, more while the events are small.
const WINDOW: u64 = 64;
const MAX_WINDOW: u64 = 1024;
const SMALL: usize = 256 * 1024;

/// "No message found", as the server numbers it.
const NO_MESSAGE: u64 = 10037;

#[derive(Deserialize)]
struct Answer {
    message: Option<Stored>,
    error: Option<Refusal>,
}

#[derive(Deserialize)]
struct Refusal {
    err_code: u64,
    description: String,
}

/// A message as the stream has it; headers and data in base64.
#[derive(Deserialize)]
struct Stored {
    subject: String,
    seq: u64,
    #[serde(default)]
    hdrs: String,
    #[serde(default)]
    data: String,
}

impl Stored {
    fn event(self) -> Option<Incoming> {
        // The server made the base64. Headers are the publisher's: what is not UTF-8 in them is no header of ours.
        let headers = STANDARD.decode(self.hdrs).unwrap_or_default();
        let headers = String::from_utf8_lossy(&headers);
        let body = STANDARD.decode(self.data).unwrap_or_default();
        heading::incoming(&self.subject, wire::headers(&headers), Offset(self.seq), None, body.into())
    }
}

async fn next(client: &Client, filter: &str, from: u64) -> Result<Option<Stored>, BusError> {
    let failed = |error: &dyn std::fmt::Display| BusError(format!("reading the stream: {error}"));
    let request = format!(r#"{{"seq":{from},"next_by_subj":"{filter}"}}"#);
    let answer = client.request(format!("$JS.API.STREAM.MSG.GET.{NAME}"), request.into()).await;
    let answer: Answer =
        serde_json::from_slice(&answer.map_err(|error| failed(&error))?.payload).map_err(|error| failed(&error))?;
    match answer {
        Answer { message: Some(stored), .. } => Ok(Some(stored)),
        Answer { error: Some(error), .. } if error.err_code == NO_MESSAGE => Ok(None),
        Answer { error, .. } => {
            Err(failed(&error.map_or_else(|| "nothing said".to_owned(), |error| error.description)))
        }
    }
}

/// One room on the way.
struct Lane {
    filter: String,
    from: u64,
    head: Option<Stored>,
}

impl Lane {
    /// Reads on up to `end`; the first event after that stays as the head. None where there is no event up to `upto`.
    async fn advance(
        mut self,
        client: &Client,
        end: u64,
        upto: u64,
    ) -> Result<(Option<Self>, Vec<Incoming>), BusError> {
        let mut events = Vec::new();
        loop {
            let head = match self.head.take() {
                Some(head) => Some(head),
                None if self.from > upto => None,
                None => next(client, &self.filter, self.from).await?.filter(|head| head.seq <= upto),
            };
            let Some(head) = head else { return Ok((None, events)) };
            self.from = head.seq + 1;
            if head.seq > end {
                self.head = Some(head);
                return Ok((Some(self), events));
            }
            events.extend(head.event());
        }
    }
}

/// A reading: rooms, each from its own offset, up to a common one.
pub(super) struct Merge {
    client: Client,
    lanes: Vec<Lane>,
    upto: u64,
    width: u64,
    begun: bool,
}

impl Merge {
    /// Rooms with the offset after which each is read.
    pub(super) fn new(client: Client, rooms: impl IntoIterator<Item = (RoomId, u64)>, upto: u64) -> Self {
        let lane = |(room, after): (RoomId, u64)| Lane { filter: room.filter(), from: after + 1, head: None };
        Self { client, lanes: rooms.into_iter().map(lane).collect(), upto, width: WINDOW, begun: false }
    }

    /// The next events, in order; none after the last. After an error the reading is over.
    pub(super) async fn window(&mut self) -> Result<Option<Vec<Incoming>>, BusError> {
        if !self.begun {
            // Every lane's head: then it is known where the first window is.
            self.begun = true;
            self.advance(0).await?;
        }
        loop {
            let Some(first) = self.lanes.iter().filter_map(|lane| Some(lane.head.as_ref()?.seq)).min() else {
                return Ok(None);
            };
            let mut events = self.advance((first + self.width - 1).min(self.upto)).await?;
            let bytes: usize = events.iter().map(|event| event.body.len()).sum();
            self.width = if bytes < SMALL { (self.width * 2).min(MAX_WINDOW) } else { (self.width / 2).max(1) };
            if !events.is_empty() {
                events.sort_unstable_by_key(|event| event.offset);
                return Ok(Some(events));
            }
        }
    }

    async fn advance(&mut self, end: u64) -> Result<Vec<Incoming>, BusError> {
        let (client, upto) = (&self.client, self.upto);
        let lanes = stream::iter(std::mem::take(&mut self.lanes)).map(|lane| lane.advance(client, end, upto));
        let advanced: Vec<_> = lanes.buffer_unordered(AT_ONCE).try_collect().await?;
        let mut events = Vec::new();
        for (lane, of_lane) in advanced {
            self.lanes.extend(lane);
            events.extend(of_lane);
        }
        Ok(events)
    }
}
