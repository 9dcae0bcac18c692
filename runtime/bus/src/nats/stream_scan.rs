//! Reads the stream once, event by event, for many rooms.
//!
//! A server of version 2.9 finds a room's next event by going over all events before it. If many rooms are each read by
//! themselves, the server goes over all events once for each room: ten nodes that backfilled in this way kept a server
//! busy without end. In one pass it goes over each event once.
//!
//! Invariant: memory holds one window, however long the stream is. If the server leaves an event out, the result is an
//! error and never the end.
use std::collections::HashMap;

use async_nats::jetstream::{
    consumer::{Consumer, DeliverPolicy, pull},
    stream::Stream,
};
use futures_util::StreamExt;
use rollcall_schema::{Offset, RoomId, Subject};
use time::OffsetDateTime;
use tokio::time::timeout;

use super::{
    next_event::{next_event, read_error},
    read_consumer::{self, PAGE_TIMEOUT},
    window::{Window, WindowSize},
    work_client::JetStream,
};
use crate::{BusError, headers};

/// A pass over the stream.
pub(super) struct StreamScan {
    jetstream: JetStream,
    stream: Stream<()>,
    consumer: Consumer<pull::Config>,
    rooms: HashMap<RoomId, u64>,
    through: u64,
    window_size: WindowSize,
    /// The last offset that was read, including other rooms' events.
    read: u64,
    /// How many events the stream has after `read`.
    pending: u64,
}

impl StreamScan {
    /// Opens a pass for rooms, each with the offset after which it is read, and through a common offset.
    pub(super) async fn open(
        jetstream: &JetStream,
        rooms: HashMap<RoomId, u64>,
        through: u64,
    ) -> Result<Self, BusError> {
        let after = rooms.values().copied().min().unwrap_or(through);
        let wanted = pull::Config {
            deliver_policy: DeliverPolicy::ByStartSequence { start_sequence: after + 1 },
            ..pull::Config::default()
        };
        let (stream, consumer) = read_consumer::open(jetstream, wanted).await?;
        let pending = consumer.cached_info().num_pending;
        Ok(Self {
            jetstream: jetstream.clone(),
            stream,
            consumer,
            rooms,
            through,
            window_size: WindowSize::default(),
            read: after,
            pending,
        })
    }

    /// Returns the next events of the rooms in order, or `None` after the last ones. After an error no more can be
    /// read.
    pub(super) async fn window(&mut self) -> Result<Option<Window>, BusError> {
        if self.pending == 0 || self.read >= self.through {
            // The server would forget the consumer anyway, so an error does not matter.
            self.stream.delete_consumer(&self.consumer.cached_info().name).await.ok();
            return self.end().await.map(|()| None);
        }
        timeout(PAGE_TIMEOUT, self.next()).await.unwrap_or_else(|_| Err(read_error("no answer in time"))).map(Some)
    }

    async fn next(&mut self) -> Result<Window, BusError> {
        let mut wanted = self.pending.min(self.window_size.events());
        let messages = self.consumer.fetch().max_messages(wanted as usize).messages();
        let mut messages = messages.await.map_err(read_error)?;
        let (mut events, mut bytes) = (Vec::new(), 0);
        while let Some(message) = messages.next().await {
            let message = message.map_err(read_error)?;
            let info = message.info().map_err(read_error)?;
            let offset = info.stream_sequence;
            (self.read, self.pending) = (offset, info.pending);
            wanted -= 1;
            bytes += message.payload.len();
            if offset <= self.through && self.wants(&message.subject, offset) {
                let headers = read_consumer::headers(&message);
                let body = message.payload.clone();
                // The clocks may differ, so an age is never negative.
                let age = (OffsetDateTime::now_utc() - info.published).try_into().ok();
                events.extend(headers::incoming(&message.subject, headers, Offset(offset), age, body));
            }
        }
        if wanted > 0 {
            return Err(read_error("it ended early"));
        }
        self.window_size.adapt(bytes);
        Ok(Window { events, through: self.read.min(self.through) })
    }

    /// Checks that the end is reached. The last event may have been deleted, but the server's count alone is not
    /// trusted.
    async fn end(&self) -> Result<(), BusError> {
        if self.read < self.through {
            let next = next_event(&self.jetstream, ">", self.read + 1).await?;
            if next.is_some_and(|next| next.seq <= self.through) {
                return Err(read_error("it ended early"));
            }
        }
        Ok(())
    }

    fn wants(&self, subject: &str, offset: u64) -> bool {
        let room = Subject::parse(subject).map(|subject| subject.room);
        room.is_ok_and(|room| self.rooms.get(&room).is_some_and(|after| *after < offset))
    }
}
