//! Reads the events from the stream, or from the table of kept events.
//!
//! Invariant: an offset names one event within its epoch. If offsets begin again, or are used again because the stream
//! was put back, the epoch is a different one.
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use rollcall_schema::{ClassroomId, Offset, TraceParent};
use serde_json::value::RawValue;
use uuid::Uuid;

use rollcall_base::names;
use rollcall_bus::{Bus, BusError, Position, PresenceEvent, PresencePage, PresenceRead};
use rollcall_store::{KeptEvent, Store, StoreError, WebhookCursor};

/// The character between a stream's own epoch and the number of times that the stream was put back.
const PUT_BACK: char = '~';
/// How many kept events are deleted at once.
const FORGET: usize = 4000;

/// An event to deliver.
#[derive(Clone, Debug)]
pub(super) struct LoggedEvent {
    pub(super) offset: Offset,
    pub(super) classroom: ClassroomId,
    pub(super) reason: Option<String>,
    pub(super) trace: Option<TraceParent>,
    pub(super) event: Box<RawValue>,
    /// When the event was stored, by this process's clock.
    pub(super) stored: Option<Instant>,
}

/// The next events after a cursor.
pub(super) struct Page {
    pub(super) events: Vec<LoggedEvent>,
    /// The offset through which there are no other events.
    pub(super) through: Offset,
    pub(super) more: bool,
}

/// The result of a read.
pub(super) enum LogRead {
    Page(Page),
    /// The offsets of the cursor are no longer valid, and reading continues at this cursor.
    Restart(WebhookCursor),
}

/// Why events cannot be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum LogError {
    #[error(transparent)]
    Stream(#[from] BusError),
    #[error(transparent)]
    Table(#[from] StoreError),
}

/// The place from which events are read.
pub(super) enum EventLog {
    Stream {
        bus: Arc<dyn Bus>,
        /// Identifies the events of this installation, because other installations may publish on the same stream.
        installation: Uuid,
    },
    Table {
        store: Arc<dyn Store>,
        /// The id of the installation, which changes when the database was put back.
        epoch: String,
    },
}

impl EventLog {
    /// Returns the next events of all classrooms, at most `max`.
    pub(super) async fn read(&self, after: &WebhookCursor, max: usize) -> Result<LogRead, LogError> {
        match self {
            Self::Stream { bus, installation } => {
                let (epoch, put_back) = split(&after.epoch);
                let position = Position { epoch: epoch.to_owned(), offset: after.offset };
                Ok(match bus.presence(&position, max).await? {
                    PresenceRead::Page(PresencePage { events, through, more, missing }) => {
                        aged_out(missing);
                        let events = events.into_iter().filter_map(|event| of_stream(event, *installation)).collect();
                        LogRead::Page(Page { events, through, more })
                    }
                    PresenceRead::Elsewhere { epoch: here, last } if here == epoch => {
                        let epoch = format!("{epoch}{PUT_BACK}{}", put_back + 1);
                        LogRead::Restart(WebhookCursor { epoch, offset: last })
                    }
                    PresenceRead::Elsewhere { epoch, .. } => {
                        LogRead::Restart(WebhookCursor { epoch, offset: Offset(0) })
                    }
                })
            }
            Self::Table { epoch, .. } if *epoch != after.epoch => {
                Ok(LogRead::Restart(WebhookCursor { epoch: epoch.clone(), offset: Offset(0) }))
            }
            Self::Table { store, .. } => {
                let kept = store.kept_events(None, after.offset, max).await?;
                let through = kept.last().map_or(after.offset, |last| last.offset);
                let more = kept.len() == max;
                Ok(LogRead::Page(Page { events: kept.into_iter().filter_map(of_table).collect(), through, more }))
            }
        }
    }

    /// Returns the events of one classroom after a cursor and through an offset, at most `max`.
    pub(super) async fn read_one(
        &self,
        classroom: ClassroomId,
        after: &WebhookCursor,
        through: Offset,
        max: usize,
    ) -> Result<Vec<LoggedEvent>, LogError> {
        match self {
            Self::Stream { bus, installation } => {
                let position = Position { epoch: split(&after.epoch).0.to_owned(), offset: after.offset };
                let events = bus.presence_of(classroom, &position, through, max).await?;
                Ok(events.into_iter().filter_map(|event| of_stream(event, *installation)).collect())
            }
            Self::Table { store, .. } => {
                let mut kept = store.kept_events(Some(classroom), after.offset, max).await?;
                kept.retain(|event| event.offset <= through);
                Ok(kept.into_iter().filter_map(of_table).collect())
            }
        }
    }

    /// Deletes events through this offset, and events that are older than `max_age`. The stream deletes its events by
    /// itself.
    pub(super) async fn forget(&self, through: Offset, max_age: Duration) -> Result<(), StoreError> {
        if let Self::Table { store, .. } = self {
            aged_out(store.forget_kept(through, max_age, FORGET).await?);
        }
        Ok(())
    }
}

fn aged_out(events: u64) {
    if events > 0 {
        tracing::error!(events, "events for the webhook were not delivered while they were kept");
        metrics::counter!(names::WEBHOOK_DROPPED, "reason" => "aged_out").increment(events);
    }
}

/// Returns the stream's own epoch, and how often the stream was put back.
fn split(epoch: &str) -> (&str, u64) {
    let parts = epoch.rsplit_once(PUT_BACK);
    parts.and_then(|(epoch, times)| Some((epoch, times.parse().ok()?))).unwrap_or((epoch, 0))
}

/// Returns `None` if another installation published the event, or it is not a valid event, because other clients can
/// write to the stream.
fn of_stream(event: PresenceEvent, installation: Uuid) -> Option<LoggedEvent> {
    let publisher = event.message_id.split(':').nth(1)?;
    if Uuid::try_parse(publisher).ok()? != installation {
        return None;
    }
    logged(event.offset, event.classroom, (event.reason, event.trace), &event.body, event.age)
}

fn of_table(event: KeptEvent) -> Option<LoggedEvent> {
    let reason = event.reason.map(|reason| reason.to_string());
    logged(event.offset, event.classroom, (reason, event.trace), &event.body, event.age)
}

fn logged(
    offset: Offset,
    classroom: ClassroomId,
    (reason, trace): (Option<String>, Option<TraceParent>),
    body: &[u8],
    age: Duration,
) -> Option<LoggedEvent> {
    let event = serde_json::from_slice::<&RawValue>(body).ok()?.to_owned();
    Some(LoggedEvent { offset, classroom, reason, trace, event, stored: Instant::now().checked_sub(age) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_that_was_put_back_has_an_epoch_of_its_own() {
        assert_eq!(split("2026-09-01T12:00:00.1Z"), ("2026-09-01T12:00:00.1Z", 0));
        assert_eq!(split("2026-09-01T12:00:00.1Z~3"), ("2026-09-01T12:00:00.1Z", 3));
    }

    #[test]
    fn events_of_others_are_left_out() {
        let installation = Uuid::new_v4();
        let event = |publisher: &str, body: &'static str| {
            let event = PresenceEvent {
                offset: Offset(7),
                classroom: ClassroomId(Uuid::new_v4()),
                message_id: format!("agent.entered:{publisher}:1:00"),
                reason: None,
                trace: None,
                age: Duration::ZERO,
                body: body.into(),
            };
            of_stream(event, installation)
        };
        let own = installation.to_string();
        assert!(event(&own, "{}").is_some() && event(&own.to_uppercase(), "{}").is_some());
        assert!(event(&Uuid::new_v4().to_string(), "{}").is_none() && event("x", "{}").is_none());
        assert!(event(&own, "{").is_none());
    }
}
