//! Sends events to Mixpanel in a task of its own (seed 003: "call mixpanel reconnect").
//!
//! Invariant: a handler never waits for Mixpanel. At most [`QUEUE`] events wait to be sent. An event is dropped and
//! counted if the queue is full or Mixpanel refuses the event. An event keeps its `$insert_id` in all attempts, so
//! Mixpanel counts it once even if it arrives twice.
use std::{future::Future, time::Duration};

use bytes::Bytes;
use hyper::{HeaderMap, Method, StatusCode, Uri};
use rollcall_schema::{Sid, UserId};
use serde::Serialize;
use tokio::sync::mpsc::{self, error::TrySendError};

use crate::{
    auth::unix_now,
    http_client::{Client, egress::Egress},
};
use rollcall_base::{Secret, names};

/// How many events may wait.
const QUEUE: usize = 10_000;
/// The maximum number of events in a request to `/track`, which Mixpanel limits.
const BATCH: usize = 50;
/// The longest answer, in bytes. An answer is `1`, `0` or a short JSON object.
const MAX_ANSWER: usize = 4 * 1024;

/// The address that events are sent to, and the token.
#[derive(Clone, Debug)]
pub struct MixpanelConfig {
    /// The project's token.
    pub token: Secret,
    /// The address of `/track`.
    pub url: Uri,
}

/// Queues events for Mixpanel. It is cheap to clone.
#[derive(Clone, Debug)]
pub struct Mixpanel(Option<mpsc::Sender<Event>>);

#[derive(Debug)]
struct Event {
    name: &'static str,
    user: UserId,
    time: u64,
    insert_id: String,
}

impl Mixpanel {
    /// Returns a queue that drops every event, because no token is configured.
    #[must_use]
    pub fn disabled() -> Self {
        Self(None)
    }

    /// Creates the queue, and the sender that empties it. The caller runs the sender.
    #[must_use]
    pub fn new(config: MixpanelConfig, egress: &Egress) -> (Self, Sender) {
        Self::with(config, Client::new(egress), Pace { attempts: 6, first: Duration::from_secs(1) })
    }

    fn with(config: MixpanelConfig, client: Client, pace: Pace) -> (Self, Sender) {
        let (queue, events) = mpsc::channel(QUEUE);
        let sender = Sender { url: config.url, token: config.token, client, pace, queue: events, batch: Vec::new() };
        (Self(Some(queue)), sender)
    }

    /// Queues an event of a user.
    pub fn track(&self, name: &'static str, user: &UserId) {
        let Some(queue) = &self.0 else { return };
        let event = Event {
            name,
            user: user.clone(),
            time: unix_now(),
            insert_id: Sid::random().to_string().replace('_', "-"),
        };
        match queue.try_send(event) {
            Ok(()) => {}
            Err(TrySendError::Full(_)) => dropped("mixpanel_queue_full", 1),
            Err(TrySendError::Closed(_)) => dropped("mixpanel_shut_down", 1),
        }
    }
}

/// How often a batch is tried, and how long the first pause is. Each further pause is twice as long.
#[derive(Clone, Copy, Debug)]
struct Pace {
    attempts: u32,
    first: Duration,
}

/// Sends events to Mixpanel.
#[derive(Debug)]
pub struct Sender {
    url: Uri,
    token: Secret,
    client: Client,
    pace: Pace,
    queue: mpsc::Receiver<Event>,
    /// The events that are being sent. They are kept here, so that they are still there if the shutdown cancels an
    /// attempt.
    batch: Vec<Event>,
}

impl Sender {
    /// Sends events until `stop`, and then the remaining events for at most `flush`.
    pub async fn run(mut self, stop: impl Future<Output = ()>, flush: Duration) {
        tokio::select! {
            () = stop => {}
            () = self.deliver() => return,
        }
        self.queue.close();
        if tokio::time::timeout(flush, self.deliver()).await.is_err() {
            let left = self.batch.len() + self.queue.len();
            dropped("mixpanel_shut_down", left);
            tracing::warn!(left, "events for Mixpanel not sent in time");
        }
    }

    /// Sends events until the queue is closed and empty.
    async fn deliver(&mut self) {
        while !self.batch.is_empty() || self.queue.recv_many(&mut self.batch, BATCH).await > 0 {
            self.send().await;
            self.batch.clear();
        }
    }

    /// Sends the batch, and tries again if that may help.
    async fn send(&self) {
        let body = self.body();
        let mut pause = self.pace.first;
        for attempt in 1..=self.pace.attempts {
            match self.client.send(Method::POST, self.url.clone(), HeaderMap::new(), body.clone(), MAX_ANSWER).await {
                Ok((status, answer)) if status.is_success() && answer.trim_ascii() != b"0" => return,
                Ok((status, _)) if !transient(status) => {
                    tracing::warn!(%status, events = self.batch.len(), "Mixpanel refused events");
                    break;
                }
                Ok((status, _)) => tracing::debug!(%status, attempt, "Mixpanel does not take events now"),
                Err(error) => tracing::debug!(%error, attempt, "Mixpanel is away"),
            }
            metrics::counter!(names::BACKEND_ERRORS, "backend" => "mixpanel", "operation" => "track").increment(1);
            if attempt < self.pace.attempts {
                tokio::time::sleep(pause).await;
                pause *= 2;
            }
        }
        dropped("mixpanel_failed", self.batch.len());
    }

    fn body(&self) -> Bytes {
        #[derive(Serialize)]
        struct Tracked<'a> {
            event: &'static str,
            properties: Properties<'a>,
        }
        #[derive(Serialize)]
        struct Properties<'a> {
            token: &'a str,
            distinct_id: &'a UserId,
            time: u64,
            #[serde(rename = "$insert_id")]
            insert_id: &'a str,
        }
        let tracked = self.batch.iter().map(|event| Tracked {
            event: event.name,
            properties: Properties {
                token: self.token.reveal(),
                distinct_id: &event.user,
                time: event.time,
                insert_id: &event.insert_id,
            },
        });
        serde_json::to_vec(&tracked.collect::<Vec<_>>()).expect("texts and numbers are JSON").into()
    }
}

/// Returns whether the same batch may be accepted later.
fn transient(status: StatusCode) -> bool {
    status.is_server_error() || matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT)
}

fn dropped(reason: &'static str, events: usize) {
    metrics::counter!(names::DROPPED, "reason" => reason).increment(events as u64);
}

#[cfg(test)]
mod tests;
