//! Passes the events of the node's feed to the workers that have members of their rooms.
use std::sync::{Arc, atomic::Ordering};

use tokio::sync::mpsc;
use tracing::{Instrument, warn};

use super::{RoomCommand, RoomKey, Rooms};
use crate::trace;
use rollcall_bus::{BusEvent, Incoming};

impl Rooms {
    /// Passes every event of the feed to the workers that have members of the event's room, until the feed ends.
    pub async fn dispatch(self, mut feed: mpsc::Receiver<BusEvent>) {
        while let Some(event) = feed.recv().await {
            match event {
                BusEvent::Event(incoming) => {
                    if let Some((key, workers)) = self.audience(&incoming) {
                        let span = trace::delivery(incoming.trace.as_deref().copied());
                        self.deliver(key, workers, incoming).instrument(span).await;
                    }
                }
                BusEvent::Watermark(offset) => {
                    self.0.watermark.store(offset.0, Ordering::SeqCst);
                    if self.0.bus.followers().load(Ordering::SeqCst) > 0 {
                        self.broadcast(|| RoomCommand::Watermark(offset)).await;
                    }
                }
                BusEvent::Gap(through) => {
                    warn!(%through, "events are lost: the connections of their rooms are closed");
                    self.broadcast(|| RoomCommand::Gap(through)).await;
                }
                BusEvent::StreamReset => {
                    warn!("the stream was created again or put back: the connections of its rooms are closed");
                    self.0.watermark.store(0, Ordering::SeqCst);
                    self.entries().values().for_each(|entry| entry.life.begin_anew());
                    self.broadcast(|| RoomCommand::StreamReset).await;
                    // A handler that reads the new epoch sends its result to a worker that has the reset already.
                    self.read_epoch();
                }
            }
        }
    }

    async fn deliver(&self, key: RoomKey, workers: Vec<usize>, incoming: Incoming) {
        let Some(delivery) = self.encode(key, incoming).map(Arc::new) else { return };
        for worker in workers {
            self.0.workers.send(worker, RoomCommand::Deliver(Arc::clone(&delivery))).await;
        }
    }

    /// Returns the room of an event, and the workers that have members of the room. Returns `None` if the event is not
    /// for them.
    fn audience(&self, incoming: &Incoming) -> Option<(RoomKey, Vec<usize>)> {
        let entries = self.entries();
        let entry = entries.get(&incoming.room).filter(|entry| entry.life.comes(incoming.offset))?;
        let workers = entry.holds.iter().enumerate().filter(|(_, holds)| **holds > 0).map(|(worker, _)| worker);
        Some((entry.key, workers.collect()))
    }

    async fn broadcast(&self, command: impl Fn() -> RoomCommand) {
        for worker in 0..self.0.workers.count() {
            self.0.workers.send(worker, command()).await;
        }
    }
}
