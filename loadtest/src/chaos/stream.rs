//! The JetStream stream: what it holds of a seed, and what other services publish into it meanwhile.

use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream::{self, stream::Stream};
use async_nats::{Client, HeaderMap};
use futures_util::{StreamExt, TryStreamExt, stream};
use serde_json::{Value, json};
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::agent::Stage;
use super::journal::key;

const NAME: &str = "CLASSROOM";
const AT_ONCE: usize = 32;
const NOTE_EVERY: Duration = Duration::from_millis(25);
const LIMIT: Duration = Duration::from_secs(10);

/// A message of the stream.
#[derive(Debug, Clone)]
pub(super) struct Stored {
    pub(super) offset: u64,
    /// `classroom.ID` or `lesson.ID`.
    pub(super) room: String,
    pub(super) key: String,
    pub(super) message_id: String,
    pub(super) sender: Option<String>,
    /// The session and whether it was entered, where it is an agent's event.
    pub(super) session: Option<(i64, bool)>,
}

/// What the stream holds from some moment on.
pub(super) struct Tape {
    client: Client,
    after: u64,
}

impl Tape {
    /// From now on.
    pub(super) async fn begin(url: &str) -> Result<Self, String> {
        let client = async_nats::connect(url).await.map_err(|error| error.to_string())?;
        let after = open(&client).await?.cached_info().state.last_sequence;
        Ok(Self { client, after })
    }

    /// The connection.
    pub(super) fn client(&self) -> Client {
        self.client.clone()
    }

    /// All messages of these rooms.
    pub(super) async fn read(&self, rooms: &[String]) -> Result<Vec<Stored>, String> {
        let from = open(&self.client).await?;
        let last = from.cached_info().state.last_sequence;
        let messages = stream::iter(self.after + 1..=last).map(|offset| {
            let from = &from;
            async move {
                let message = timeout(LIMIT, from.get_raw_message(offset)).await.map_err(|error| error.to_string())?;
                message.map(|message| stored(offset, &message)).map_err(|error| format!("message {offset}: {error}"))
            }
        });
        let messages: Vec<Stored> = messages.buffered(AT_ONCE).try_collect().await?;
        Ok(messages.into_iter().filter(|message| rooms.contains(&message.room)).collect())
    }
}

async fn open(client: &Client) -> Result<Stream, String> {
    let context = jetstream::new(client.clone());
    let found = timeout(LIMIT, context.get_stream(NAME)).await.map_err(|error| error.to_string())?;
    found.map_err(|error| error.to_string())
}

fn stored(offset: u64, message: &jetstream::message::StreamMessage) -> Stored {
    let header = |name: &str| message.headers.get(name).map(|value| value.as_str().to_owned());
    let subject = message.subject.as_str();
    let body: Value = serde_json::from_slice(&message.payload).unwrap_or_default();
    let session = match (body["id"]["operation"].as_str(), body["id"]["sequence_id"].as_i64()) {
        (Some(operation @ ("entered" | "left")), Some(session)) => Some((session, operation == "entered")),
        _ => None,
    };
    Stored {
        offset,
        room: subject.rsplit_once('.').map_or(subject, |(room, _)| room).to_owned(),
        key: key(&body),
        message_id: header("Nats-Msg-Id").unwrap_or_default(),
        sender: header("Sender-Agent-Id"),
        session,
    }
}

/// Publishes notes into all rooms of a seed until everybody leaves, whatever happens to the server.
pub(super) async fn chatter(client: Client, stage: Arc<Stage>) {
    let classrooms = stage.classrooms.iter().map(|id| format!("classroom.{id}.note"));
    let subjects: Vec<String> =
        classrooms.chain(stage.lessons.iter().flatten().map(|id| format!("lesson.{id}.note"))).collect();
    let mut ticks = interval(NOTE_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for (number, subject) in subjects.iter().cycle().enumerate() {
        ticks.tick().await;
        if *stage.over.borrow() {
            return;
        }
        let note = format!("{}-{number}", stage.seed);
        let mut headers = HeaderMap::new();
        headers.insert("Nats-Msg-Id", format!("note:{note}"));
        let body = json!({"note": note}).to_string();
        // What is lost on the way was never published: the stream says what was.
        timeout(NOTE_EVERY, client.publish_with_headers(subject.clone(), headers, body.into())).await.ok();
    }
}
