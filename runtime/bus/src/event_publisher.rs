//! Publishes the events of handlers and of other services (`POST /api/v1/publish`, functions over HTTP).
//!
//! Invariant: no more events and bytes wait to be stored than [`PublishLimits`] allows. An event that does not fit is
//! refused at once, so a slow or absent bus costs a bounded amount of memory.
use std::sync::Arc;

use rollcall_schema::Offset;
use tokio::sync::{Semaphore, SemaphorePermit};

use super::{Bus, Publication, PublishError};
use rollcall_base::names;

/// The approximate cost of an event beside its body and its headers, in bytes.
const OVERHEAD: usize = 256;

/// How much may wait on this node to be stored.
#[derive(Clone, Copy, Debug)]
pub struct PublishLimits {
    /// The maximum number of events.
    pub events: usize,
    /// The maximum number of bytes: bodies, headers and an overhead for each event.
    pub bytes: usize,
}

/// Publishes events other than those of presence. It is cheap to clone, and all clones share the limits.
#[derive(Clone)]
pub struct EventPublisher(Arc<Inner>);

struct Inner {
    bus: Arc<dyn Bus>,
    events: Semaphore,
    bytes: Semaphore,
}

impl EventPublisher {
    /// Creates a publisher on this bus.
    #[must_use]
    pub fn new(bus: Arc<dyn Bus>, limits: PublishLimits) -> Self {
        let permits = |limit: usize| Semaphore::new(limit.min(Semaphore::MAX_PERMITS));
        Self(Arc::new(Inner { bus, events: permits(limits.events), bytes: permits(limits.bytes) }))
    }

    /// Publishes one event. Ok means that it is stored. The call takes at most 1.5 s, and an event that was not stored
    /// by then is not sent later.
    ///
    /// # Errors
    /// Returns a [`PublishError`] if the event was not stored, or it is unknown whether it was stored.
    pub async fn publish(&self, event: Publication) -> Result<Offset, PublishError> {
        self.publish_all(vec![event]).await.pop().unwrap_or(Err(PublishError::Busy))
    }

    /// Publishes several events, which are stored in this order. Returns a result for each. If they do not all fit into
    /// the limits, all are refused.
    pub async fn publish_all(&self, events: Vec<Publication>) -> Vec<Result<Offset, PublishError>> {
        let count = events.len();
        let bytes = events.iter().map(size).sum();
        let results = match (take(&self.0.events, count), take(&self.0.bytes, bytes)) {
            (Some(_events), Some(_bytes)) => self.0.bus.publish_events(events).await,
            _ => vec![Err(PublishError::Busy); count],
        };
        for result in &results {
            let outcome = match result {
                Ok(_) => "stored",
                Err(PublishError::Refused(_)) => "refused",
                Err(PublishError::Busy) => "busy",
                Err(PublishError::Away(_) | PublishError::Behind) => "away",
            };
            metrics::counter!(names::EVENTS_PUBLISHED, "outcome" => outcome).increment(1);
        }
        results
    }
}

fn size(event: &Publication) -> usize {
    let headers: usize = event.headers.iter().map(|(name, value)| name.len() + value.len()).sum();
    OVERHEAD + event.body.len() + headers
}

fn take(semaphore: &Semaphore, count: usize) -> Option<SemaphorePermit<'_>> {
    semaphore.try_acquire_many(u32::try_from(count).ok()?).ok()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use rollcall_schema::Subject;

    use super::*;
    use crate::{
        Fence,
        memory::{LogLimits, MemoryBus},
    };

    fn note(bytes: usize) -> Publication {
        Publication {
            subject: Subject::parse("lesson.algebra-1.note").unwrap(),
            message_id: None,
            headers: Vec::new(),
            body: vec![b' '; bytes].into(),
            fence: Fence::None,
        }
    }

    fn publisher(events: usize, bytes: usize) -> EventPublisher {
        let (bus, _feed) = MemoryBus::start(LogLimits::default());
        EventPublisher::new(Arc::new(bus), PublishLimits { events, bytes })
    }

    #[tokio::test]
    async fn what_does_not_fit_is_refused_and_leaves_room_again() {
        let publisher = publisher(2, 4 * OVERHEAD);
        for _ in 0..3 {
            let three = publisher.publish_all(vec![note(0), note(0), note(0)]).await;
            assert!(three.iter().all(|result| matches!(result, Err(PublishError::Busy))) && three.len() == 3);
            assert!(matches!(publisher.publish(note(4 * OVERHEAD)).await, Err(PublishError::Busy)));
        }
        assert_eq!(publisher.publish(note(0)).await.unwrap(), Offset(1));
        let two = publisher.publish_all(vec![note(0), note(0)]).await;
        assert_eq!(two.into_iter().map(Result::unwrap).collect::<Vec<_>>(), [Offset(2), Offset(3)]);
    }
}
