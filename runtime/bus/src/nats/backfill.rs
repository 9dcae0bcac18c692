//! Reads events of several rooms from the stream, in order.
//!
//! A server of version 2.9 filters by one subject at a time. So each of a few rooms is read by itself, event after
//! event, and the rooms are merged in windows of offsets. They are read concurrently, and a room without events in a
//! window costs nothing. Many rooms are read in one pass over all events ([`StreamScan`]).
//!
//! Invariant: memory holds one window and at most one more event for each of a few rooms, however long the stream is. The
//! events of a window are all of one stream, even if the stream was created again meanwhile.
use std::collections::HashMap;

use futures_util::{StreamExt, TryStreamExt, stream};
use rollcall_schema::RoomId;

use super::{
    next_event::{Stored, next_event, read_error},
    stream::{check_epoch, state},
    stream_scan::StreamScan,
    window::{Window, WindowSize},
    work_client::JetStream,
};
use crate::{BusError, Incoming};

/// How many requests of one backfill run concurrently.
const MAX_CONCURRENT: usize = 32;
/// Up to this many rooms are read each by itself. Skipping an event costs the server much less than sending it, so a
/// pass over all events is cheaper only for many rooms, however long the gap is.
const MAX_MERGED_ROOMS: usize = 25;
/// If no pass can be made, more than [`MAX_MERGED_ROOMS`] rooms are read each by itself, provided a server of version
/// 2.9 looks at no more than this many events.
const MAX_VISITS: u64 = 20_000_000;

/// Reads rooms, each after an offset of its own and through a common one.
pub(super) enum Backfill {
    /// Reads each room by itself.
    Few(Box<RoomMerge>),
    /// Reads all rooms in one pass.
    Many(Box<StreamScan>),
}

impl Backfill {
    /// Opens a backfill of rooms, each with the offset after which it is read.
    pub(super) async fn open(
        jetstream: &JetStream,
        rooms: impl IntoIterator<Item = (RoomId, u64)>,
        through: u64,
    ) -> Result<Self, BusError> {
        let rooms: HashMap<RoomId, u64> = rooms.into_iter().filter(|(_, after)| *after < through).collect();
        Ok(match rooms.len() {
            ..=MAX_MERGED_ROOMS => Self::Few(Box::new(RoomMerge::open(jetstream, rooms, through).await?)),
            _ => match StreamScan::open(jetstream, rooms.clone(), through).await {
                Ok(scan) => Self::Many(Box::new(scan)),
                // While a cluster elects the leader that makes consumers, its streams already answer.
                Err(_) if visits(&rooms, through) <= MAX_VISITS => {
                    Self::Few(Box::new(RoomMerge::open(jetstream, rooms, through).await?))
                }
                Err(error) => return Err(error),
            },
        })
    }

    /// Returns the next events in order, or `None` after the last ones. After an error no more can be read.
    pub(super) async fn window(&mut self) -> Result<Option<Window>, BusError> {
        match self {
            Self::Few(merge) => merge.window().await,
            Self::Many(scan) => scan.window().await,
        }
    }
}

/// Returns how many events a server looks at if it skips over all of them for each room.
fn visits(rooms: &HashMap<RoomId, u64>, through: u64) -> u64 {
    rooms.values().map(|after| through - after).sum()
}

/// Reads one room, in one spelling of its subjects.
struct Lane {
    filter: String,
    from: u64,
    head: Option<Stored>,
}

impl Lane {
    /// Reads through `end`. The first event after that stays as the head. Returns `None` if there is no event up to
    /// `through`.
    async fn advance(
        mut self,
        jetstream: &JetStream,
        end: u64,
        through: u64,
    ) -> Result<(Option<Self>, Vec<Incoming>), BusError> {
        let mut events = Vec::new();
        loop {
            let head = match self.head.take() {
                Some(head) => Some(head),
                None if self.from > through => None,
                None => next_event(jetstream, &self.filter, self.from).await?.filter(|head| head.seq <= through),
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

/// Rooms of which each is read by itself.
pub(super) struct RoomMerge {
    jetstream: JetStream,
    /// The stream's epoch at the beginning. If the stream is created again, some rooms may have been read in one stream
    /// and others in the other one.
    epoch: String,
    lanes: Vec<Lane>,
    through: u64,
    window_size: WindowSize,
    begun: bool,
}

impl RoomMerge {
    async fn open(jetstream: &JetStream, rooms: HashMap<RoomId, u64>, through: u64) -> Result<Self, BusError> {
        let epoch = match rooms.is_empty() {
            true => String::new(),
            false => state(jetstream).await.map_err(read_error)?.epoch,
        };
        let lanes = |(room, after): (RoomId, u64)| {
            room.filters().map(move |filter| Lane { filter, from: after + 1, head: None })
        };
        Ok(Self {
            jetstream: jetstream.clone(),
            epoch,
            lanes: rooms.into_iter().flat_map(lanes).collect(),
            through,
            window_size: WindowSize::default(),
            begun: false,
        })
    }

    async fn window(&mut self) -> Result<Option<Window>, BusError> {
        if !self.begun {
            // The head of every room is read first, because the heads determine the first window.
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
                check_epoch(&self.jetstream, &self.epoch).await?;
                events.sort_unstable_by_key(|event| event.offset);
                return Ok(Some(Window { events, through }));
            }
        }
    }

    async fn advance(&mut self, end: u64) -> Result<Vec<Incoming>, BusError> {
        let (jetstream, through) = (&self.jetstream, self.through);
        let lanes = stream::iter(std::mem::take(&mut self.lanes)).map(|lane| lane.advance(jetstream, end, through));
        let advanced: Vec<_> = lanes.buffer_unordered(MAX_CONCURRENT).try_collect().await?;
        let mut events = Vec::new();
        for (lane, of_lane) in advanced {
            self.lanes.extend(lane);
            events.extend(of_lane);
        }
        Ok(events)
    }
}

#[cfg(test)]
mod tests {
    use rollcall_schema::LessonId;

    use super::*;
    use crate::nats::{stream::ensure, work_client::WorkClient};

    #[tokio::test]
    async fn no_window_mixes_two_streams() {
        let (_server, work) = WorkClient::with_server().await;
        let jetstream = work.jetstream().await.expect("connected");
        let room = RoomId::Lesson(LessonId::parse("algebra-1").expect("a lesson"));
        let store = async || {
            ensure(&jetstream).await.expect("made");
            let sent = jetstream.context().publish(format!("{room}.note"), "{}".into()).await.expect("sent");
            sent.await.expect("stored");
        };
        store().await;
        let open = async || Backfill::open(&jetstream, [(room.clone(), 0)], 1).await.expect("opened");
        let (mut before, mut during) = (open().await, open().await);
        let window = before.window().await.expect("read").expect("a window");
        assert_eq!((window.events.len(), window.through), (1, 1));
        jetstream.context().delete_stream("CLASSROOM").await.expect("deleted");
        store().await;
        assert!(during.window().await.is_err());
    }
}
