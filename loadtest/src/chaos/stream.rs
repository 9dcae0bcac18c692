//! The JetStream stream: what it holds of a seed, its faults, and what other services publish meanwhile.
//!
//! Invariant: the messages of a deleted stream are known, because it takes no message from before it is read until it
//! is deleted.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_nats::jetstream::stream::{Config, Stream};
use async_nats::jetstream::{self, Context};
use async_nats::{Client, HeaderMap};
use futures_util::{StreamExt, TryStreamExt, stream};
use serde_json::{Value, json};
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

use super::agent::Stage;
use super::journal::{key, locked};

const NAME: &str = "CLASSROOM";
const AT_ONCE: usize = 32;
const NOTE_EVERY: Duration = Duration::from_millis(25);
const LIMIT: Duration = Duration::from_secs(10);
/// How long to wait for the answer whether the stream is there.
const LOOK_LIMIT: Duration = Duration::from_secs(1);
/// A limit in bytes that is below the size of any message.
const NOTHING: i32 = 1;
/// An offset that no stream reaches.
const FORGED_SEQUENCE: &str = "9000000000000000000";
/// The key of a forged message.
pub(super) const FORGED: &str = "note forged";

/// A message's place: the number of its stream (a seed may have several, one after the other), and its sequence there.
pub(super) type Place = (usize, u64);

/// A message of the stream.
#[derive(Debug, Default, Clone)]
pub(super) struct Stored {
    /// The number of its stream.
    pub(super) epoch: usize,
    pub(super) offset: u64,
    /// `classroom.ID` or `lesson.ID`.
    pub(super) room: String,
    pub(super) key: String,
    pub(super) message_id: String,
    pub(super) sender: Option<String>,
    /// For an agent's event: the session, and whether the event is entered.
    pub(super) session: Option<(i64, bool)>,
    /// The reason, if the session left.
    pub(super) reason: Option<String>,
}

impl Stored {
    pub(super) fn place(&self) -> Place {
        (self.epoch, self.offset)
    }
}

/// All messages that were stored during a seed.
#[derive(Debug, Default, Clone)]
pub(super) struct Record {
    /// The messages in the stream's order.
    pub(super) messages: Vec<Stored>,
    /// The times at which the streams were made, as the gateway tells them to clients.
    pub(super) epochs: Vec<String>,
}

/// Records the messages of the streams from some moment on.
pub(super) struct Tape {
    client: Client,
    earlier: Mutex<Earlier>,
}

/// What is known of the streams before the current one, and of the current one.
#[derive(Debug, Default, Clone)]
struct Earlier {
    record: Record,
    /// The last offset of the current stream before the seed began.
    after: u64,
    /// The current stream's times of creation, one after the other. If a server of version 2.9 was restarted, then
    /// changes the stream's settings and is restarted again, it says that the stream was made at its first restart.
    created: Vec<String>,
}

impl Earlier {
    fn note_created(&mut self, created: String) {
        if self.created.last() != Some(&created) {
            self.created.push(created);
        }
    }
}

impl Tape {
    /// Records from now on.
    pub(super) async fn begin(url: &str) -> Result<Self, String> {
        let client = async_nats::connect(url).await.map_err(|error| error.to_string())?;
        let after = open(&client).await?.cached_info().state.last_sequence;
        let earlier = Earlier { after, created: vec![created(&client).await?], ..Earlier::default() };
        Ok(Self { client, earlier: Mutex::new(earlier) })
    }

    /// Returns the connection to NATS.
    pub(super) fn client(&self) -> Client {
        self.client.clone()
    }

    /// Reads all messages of these rooms.
    pub(super) async fn read(&self, rooms: &[String]) -> Result<Record, String> {
        let mut known = locked(&self.earlier).clone();
        // If the stream was deleted and not made again, it holds nothing.
        if let Ok(stream) = open(&self.client).await {
            self.copy(&stream, &mut known).await?;
        }
        let Earlier { mut record, .. } = known;
        record.messages.retain(|message| rooms.contains(&message.room));
        Ok(record)
    }

    /// Adds the messages of the current stream since the seed began. For a node, a stream with another time of creation
    /// is another stream. So all messages are added once for each of the stream's times.
    async fn copy(&self, from: &Stream, known: &mut Earlier) -> Result<(), String> {
        known.note_created(created(&self.client).await?);
        let last = from.cached_info().state.last_sequence;
        let messages = stream::iter(known.after + 1..=last).map(|offset| async move {
            let message = timeout(LIMIT, from.get_raw_message(offset)).await.map_err(|error| error.to_string())?;
            match message {
                Ok(message) => Ok(Some(stored(offset, &message))),
                // A node that checks whether NATS is ready stores a message and deletes it, which leaves a gap.
                Err(error) if matches!(error.kind(), jetstream::stream::RawMessageErrorKind::NoMessageFound) => {
                    Ok(None)
                }
                Err(error) => Err(format!("{offset}: {error}")),
            }
        });
        let messages: Vec<Option<Stored>> = messages.buffered(AT_ONCE).try_collect().await?;
        for created in known.created.drain(..) {
            let epoch = known.record.epochs.len();
            known.record.epochs.push(created);
            let of_epoch = messages.iter().flatten().map(|stored| Stored { epoch, ..stored.clone() });
            known.record.messages.extend(of_epoch);
        }
        Ok(())
    }

    /// Makes the stream refuse all messages. Returns its settings for [`Tape::accept`].
    pub(super) async fn refuse(&self) -> Result<Config, String> {
        let config = open(&self.client).await?.cached_info().config.clone();
        let created = created(&self.client).await?;
        locked(&self.earlier).note_created(created);
        self.accept(&Config { max_message_size: NOTHING, ..config.clone() }).await?;
        Ok(config)
    }

    /// Gives the stream these settings.
    pub(super) async fn accept(&self, config: &Config) -> Result<(), String> {
        let context = context(&self.client);
        context.update_stream(config).await.map(drop).map_err(|error| error.to_string())
    }

    /// Reads the stream's messages and deletes it.
    pub(super) async fn delete(&self) -> Result<Config, String> {
        let config = self.refuse().await?;
        // The stream's end is read after it refuses messages.
        let stream = open(&self.client).await?;
        let mut known = locked(&self.earlier).clone();
        self.copy(&stream, &mut known).await?;
        context(&self.client).delete_stream(NAME).await.map_err(|error| error.to_string())?;
        *locked(&self.earlier) = Earlier { after: 0, ..known };
        Ok(config)
    }

    /// Makes the stream, unless a node was faster.
    pub(super) async fn create(&self, config: Config) {
        // An error means that a node has made the stream with its own settings. These settings are sufficient, too.
        context(&self.client).create_stream(config).await.ok();
    }

    /// Waits until the stream is there again. Gives up if no node makes it, or the server is not there.
    pub(super) async fn until_made(&self) {
        let made = async {
            while !matches!(timeout(LOOK_LIMIT, open(&self.client)).await, Ok(Ok(_))) {
                sleep(NOTE_EVERY).await;
            }
        };
        timeout(LIMIT, made).await.ok();
    }

    /// Publishes a message to each classroom that claims to come from the stream, with an offset far beyond its end.
    pub(super) async fn forge(&self, classrooms: &[String]) -> Result<(), String> {
        for classroom in classrooms {
            let subject = format!("classroom.{classroom}.note");
            let mut headers = HeaderMap::new();
            headers.insert("Nats-Stream", NAME);
            headers.insert("Nats-Subject", subject.as_str());
            headers.insert("Nats-Sequence", FORGED_SEQUENCE);
            headers.insert("Nats-Last-Sequence", "0");
            let body = json!({"note": "forged"}).to_string();
            let sent = self.client.publish_with_headers(format!("live.{subject}"), headers, body.into());
            timeout(LIMIT, sent).await.map_err(|error| error.to_string())?.map_err(|error| error.to_string())?;
        }
        timeout(LIMIT, self.client.flush()).await.map_err(|error| error.to_string())?.map_err(|error| error.to_string())
    }
}

fn context(client: &Client) -> Context {
    let mut context = jetstream::new(client.clone());
    context.set_timeout(LIMIT);
    context
}

async fn open(client: &Client) -> Result<Stream, String> {
    let found = timeout(LIMIT, context(client).get_stream(NAME)).await.map_err(|error| error.to_string())?;
    found.map_err(|error| error.to_string())
}

/// Returns the time at which the stream was made, as text.
async fn created(client: &Client) -> Result<String, String> {
    let request = client.request(format!("$JS.API.STREAM.INFO.{NAME}"), "".into());
    let answer = timeout(LIMIT, request).await.map_err(|error| error.to_string())?;
    let answer = answer.map_err(|error| error.to_string())?;
    let info: Value = serde_json::from_slice(&answer.payload).map_err(|error| error.to_string())?;
    info["created"].as_str().map(str::to_owned).ok_or_else(|| format!("no stream: {info}"))
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
        epoch: 0,
        offset,
        room: subject.rsplit_once('.').map_or(subject, |(room, _)| room).to_owned(),
        key: key(&body),
        message_id: header("Nats-Msg-Id").unwrap_or_default(),
        sender: header("Sender-Agent-Id"),
        session,
        reason: header("Left-Reason"),
    }
}

/// Publishes notes to all rooms of a seed until all agents leave, whatever happens to the server.
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
        // A note that is lost on its way was never published: only the stream counts.
        timeout(NOTE_EVERY, client.publish_with_headers(subject.clone(), headers, body.into())).await.ok();
    }
}
