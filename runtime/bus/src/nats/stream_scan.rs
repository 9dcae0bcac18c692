//! Reads the stream once, event by event, for many rooms.
//!
//! A server of version 2.9 finds a room's next event by going over all events before it. If many rooms are each read by
//! themselves, the server goes over all events once for each room: ten nodes that backfilled in this way kept a server
//! busy without end. In one pass it goes over each event once.
//!
//! Invariant: memory holds one window, however long the stream is. If the server leaves an event out, the result is an
//! error and never the end.
use std::collections::HashMap;

use async_nats::jetstream::consumer::{DeliverPolicy, pull};
use rollcall_base::names;
use rollcall_schema::{Offset, RoomId, Subject};
use time::OffsetDateTime;

use super::{
    next_event::{next_event, read_error},
    read_consumer::{Delivered, ReadConsumer},
    window::{Window, WindowSize},
    work_client::JetStream,
};
use crate::{BusError, headers};

/// A pass over the stream.
pub(super) struct StreamScan {
    jetstream: JetStream,
    consumer: ReadConsumer,
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
        let consumer = ReadConsumer::open(jetstream, wanted).await?;
        let pending = consumer.pending();
        Ok(Self {
            jetstream: jetstream.clone(),
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
            self.consumer.close().await;
            return self.end().await.map(|()| None);
        }
        self.next().await.map(Some)
    }

    async fn next(&mut self) -> Result<Window, BusError> {
        let wanted = self.pending.min(self.window_size.events());
        let page = self.consumer.page(wanted).await?;
        if (page.len() as u64) < wanted {
            return Err(read_error("it ended early"));
        }
        let (mut events, mut bytes) = (Vec::new(), 0);
        for Delivered { offset, pending, stored, content, .. } in page {
            (self.read, self.pending) = (offset, pending);
            let Some(content) = content else {
                metrics::counter!(names::DROPPED, "reason" => "too_large").increment(1);
                continue;
            };
            bytes += content.body.len();
            if offset <= self.through && self.wants(&content.subject, offset) {
                let body = content.body.clone();
                // The clocks may differ, so an age is never negative.
                let age = (OffsetDateTime::now_utc() - stored).try_into().ok();
                events.extend(headers::incoming(&content.subject, content.headers(), Offset(offset), age, body));
            }
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
