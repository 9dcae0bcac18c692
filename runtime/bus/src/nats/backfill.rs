//! Reads events of several rooms from the stream, in order.
//!
//! A server of version 2.9 filters by one subject at a time. So a few rooms are read one by one, event after event, and
//! merged in windows of offsets. The rooms are read side by side; a room without events in a window costs nothing. Many
//! rooms are read in one pass over all events ([`StreamScan`]).
//!
//! Invariant: memory holds one window and at most one more event for each of a few rooms, whatever the stream holds.
use std::collections::HashMap;

use async_nats::Client;
use base64::{Engine, engine::general_purpose::STANDARD};
use futures_util::{StreamExt, TryStreamExt, stream};
use rollcall_schema::{Offset, RoomId};
use serde::Deserialize;

use super::{stream::NAME, stream_scan::StreamScan, wire};
use crate::{BusError, Incoming, headers};

/// How many requests of one backfill run at once.
const MAX_CONCURRENT: usize = 32;
/// Up to this many rooms are read one by one. Going over an event costs the server much less than sending it, so a pass
/// pays for many rooms only, however long the gap is.
const MAX_MERGED_ROOMS: usize = 25;
/// Offsets in a window: few at first, more while the events are small.
const MIN_WINDOW: u64 = 64;
const MAX_WINDOW: u64 = 1024;
const MAX_WINDOW_BYTES: usize = 256 * 1024;

/// How many offsets are read at once.
pub(super) struct WindowSize(u64);

impl Default for WindowSize {
    fn default() -> Self {
        Self(MIN_WINDOW)
    }
}

impl WindowSize {
    pub(super) fn events(&self) -> u64 {
        self.0
    }

    /// Adapts to the bytes of the last window.
    pub(super) fn adapt(&mut self, bytes: usize) {
        self.0 = if bytes < MAX_WINDOW_BYTES { (self.0 * 2).min(MAX_WINDOW) } else { (self.0 / 2).max(1) };
    }
}

/// The next part of a backfill.
pub(super) struct Window {
    /// In order.
    pub(super) events: Vec<Incoming>,
    /// There are no other events up to here.
    pub(super) through: u64,
}

/// A reading of rooms, each from its own offset, up to a common one.
pub(super) enum Backfill {
    /// Each room by itself.
    Few(RoomMerge),
    /// All rooms in one pass.
    Many(Box<StreamScan>),
}

impl Backfill {
    /// Opens it for rooms, each with the offset after which it is read.
    pub(super) async fn open(
        client: &Client,
        rooms: impl IntoIterator<Item = (RoomId, u64)>,
        through: u64,
    ) -> Result<Self, BusError> {
        let rooms: HashMap<RoomId, u64> = rooms.into_iter().filter(|(_, after)| *after < through).collect();
        Ok(match rooms.len() {
            ..=MAX_MERGED_ROOMS => Self::Few(RoomMerge::new(client.clone(), rooms, through)),
            _ => Self::Many(Box::new(StreamScan::open(client, rooms, through).await?)),
        })
    }

    /// The next events, in order; none after the last. After an error no more can be read.
    pub(super) async fn window(&mut self) -> Result<Option<Window>, BusError> {
        match self {
            Self::Few(merge) => merge.window().await,
            Self::Many(scan) => scan.window().await,
        }
    }
}

/// The server's code for "no message found".
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

/// A message as the stream returns it; headers and data in base64.
#[derive(Deserialize)]
pub(super) struct Stored {
    subject: String,
    pub(super) seq: u64,
    #[serde(default)]
    hdrs: String,
    #[serde(default)]
    data: String,
}

impl Stored {
    fn event(self) -> Option<Incoming> {
        // The base64 is the server's, the headers are the publisher's: those that are not UTF-8 are none of ours.
        let headers = STANDARD.decode(self.hdrs).unwrap_or_default();
        let headers = String::from_utf8_lossy(&headers);
        let body = STANDARD.decode(self.data).unwrap_or_default();
        headers::incoming(&self.subject, wire::headers(&headers), Offset(self.seq), None, body.into())
    }
}

pub(super) fn read_error(error: impl std::fmt::Display) -> BusError {
    BusError(format!("reading the stream: {error}"))
}

/// The first event at or after an offset.
pub(super) async fn next_event(client: &Client, filter: &str, from: u64) -> Result<Option<Stored>, BusError> {
    let request = format!(r#"{{"seq":{from},"next_by_subj":"{filter}"}}"#);
    let answer = client.request(format!("$JS.API.STREAM.MSG.GET.{NAME}"), request.into()).await;
    let answer: Answer = serde_json::from_slice(&answer.map_err(read_error)?.payload).map_err(read_error)?;
    match answer {
        Answer { message: Some(stored), .. } => Ok(Some(stored)),
        Answer { error: Some(error), .. } if error.err_code == NO_MESSAGE => Ok(None),
        Answer { error, .. } => {
            Err(read_error(error.map_or_else(|| "nothing said".to_owned(), |error| error.description)))
        }
    }
}

/// The reading of one room.
struct Lane {
    filter: String,
    from: u64,
    head: Option<Stored>,
}

impl Lane {
    /// Reads on up to `end`; the first event after that stays as the head. None if there is no event up to `through`.
    async fn advance(
        mut self,
        client: &Client,
        end: u64,
        through: u64,
    ) -> Result<(Option<Self>, Vec<Incoming>), BusError> {
        let mut events = Vec::new();
        loop {
            let head = match self.head.take() {
                Some(head) => Some(head),
                None if self.from > through => None,
                None => next_event(client, &self.filter, self.from).await?.filter(|head| head.seq <= through),
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

/// Rooms that are read one by one.
pub(super) struct RoomMerge {
    client: Client,
    lanes: Vec<Lane>,
    through: u64,
    window_size: WindowSize,
    begun: bool,
}

impl RoomMerge {
    fn new(client: Client, rooms: impl IntoIterator<Item = (RoomId, u64)>, through: u64) -> Self {
        let lane = |(room, after): (RoomId, u64)| Lane { filter: room.filter(), from: after + 1, head: None };
        Self {
            client,
            lanes: rooms.into_iter().map(lane).collect(),
            through,
            window_size: WindowSize::default(),
            begun: false,
        }
    }

    async fn window(&mut self) -> Result<Option<Window>, BusError> {
        if !self.begun {
            // Reads every room's head first, which tells where the first window is.
            self.begun = true;
            self.advance(0).await?;
        }
        loop {
            let Some(first) = self.lanes.iter().filter_map(|lane| Some(lane.head.as_ref()?.seq)).min() else {
                return Ok(None);
            };
            let through = (first + self.window_size.events() - 1).min(self.through);
            let mut events = self.advance(through).await?;
            self.window_size.adapt(events.iter().map(|event| event.body.len()).sum());
            if !events.is_empty() {
                events.sort_unstable_by_key(|event| event.offset);
                return Ok(Some(Window { events, through }));
            }
        }
    }

    async fn advance(&mut self, end: u64) -> Result<Vec<Incoming>, BusError> {
        let (client, through) = (&self.client, self.through);
        let lanes = stream::iter(std::mem::take(&mut self.lanes)).map(|lane| lane.advance(client, end, through));
        let advanced: Vec<_> = lanes.buffer_unordered(MAX_CONCURRENT).try_collect().await?;
        let mut events = Vec::new();
        for (lane, of_lane) in advanced {
            self.lanes.extend(lane);
            events.extend(of_lane);
        }
        Ok(events)
    }
}
