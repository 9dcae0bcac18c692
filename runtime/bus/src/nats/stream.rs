//! The stream CLASSROOM: its settings, and where it is.
//!
//! Invariant: a node works on a stream with exactly the settings of PROTOCOL 3, or not at all.
use std::time::Duration;

use async_nats::{
    Client,
    jetstream::{
        self, ErrorCode,
        context::{CreateStreamErrorKind, GetStreamErrorKind},
        stream::{Config, Republish, RetentionPolicy, StorageType},
    },
};
use serde::Deserialize;

use super::NatsError;
use crate::Position;

pub(super) const NAME: &str = "CLASSROOM";
/// Where the stream's state is asked for.
pub(super) const INFO: &str = "$JS.API.STREAM.INFO.CLASSROOM";
const SUBJECTS: [&str; 2] = ["classroom.>", "lesson.>"];
pub(super) const MAX_AGE: Duration = Duration::from_secs(60 * 60);
const DUPLICATE_WINDOW: Duration = Duration::from_secs(2 * 60);

/// Where the stream is.
#[derive(Clone, Debug)]
pub(super) struct State {
    /// When it was made, which names the epoch of its offsets.
    pub(super) epoch: String,
    /// The first event that it still holds.
    pub(super) first: u64,
    /// The last event; smaller than the first if it holds none.
    pub(super) last: u64,
    /// Its size.
    pub(super) bytes: u64,
    /// The most that it may have; none where it has no limit.
    pub(super) max_bytes: Option<u64>,
}

impl State {
    /// Whether the stream still holds everything after this position.
    pub(super) fn covers(&self, after: &Position) -> bool {
        let offset = after.offset.0;
        self.epoch == after.epoch && offset <= self.last && (offset == self.last || self.first <= offset + 1)
    }
}

/// Why there is no [`State`].
#[derive(Clone, Debug, thiserror::Error)]
pub(super) enum StateError {
    #[error("no stream {NAME}")]
    Missing,
    #[error("{0}")]
    Away(String),
}

#[derive(Deserialize)]
struct Answer {
    created: Option<String>,
    state: Option<Sequences>,
    config: Option<Limits>,
    error: Option<Refusal>,
}

#[derive(Deserialize)]
struct Sequences {
    first_seq: u64,
    last_seq: u64,
    bytes: u64,
}

#[derive(Deserialize)]
struct Limits {
    /// Negative where there is none.
    max_bytes: i64,
}

#[derive(Deserialize)]
struct Refusal {
    err_code: u64,
    description: String,
}

/// Asks on the connection of this client.
pub(super) async fn state(client: &Client) -> Result<State, StateError> {
    let answer = client.request(INFO, "".into()).await;
    parse_state(&answer.map_err(|error| StateError::Away(error.to_string()))?.payload)
}

/// Reads an answer from [`INFO`]. The server itself sends an empty one if JetStream is not there.
pub(super) fn parse_state(answer: &[u8]) -> Result<State, StateError> {
    let away = |error: &dyn std::fmt::Display| StateError::Away(error.to_string());
    if answer.is_empty() {
        return Err(away(&"JetStream is not there"));
    }
    let answer: Answer = serde_json::from_slice(answer).map_err(|error| away(&error))?;
    match answer {
        Answer { created: Some(epoch), state: Some(state), config, .. } => {
            let max_bytes = config.and_then(|limits| u64::try_from(limits.max_bytes).ok());
            let Sequences { first_seq: first, last_seq: last, bytes } = state;
            Ok(State { epoch, first, last, bytes, max_bytes })
        }
        Answer { error: Some(error), .. } if error.err_code == ErrorCode::STREAM_NOT_FOUND.0 => {
            Err(StateError::Missing)
        }
        Answer { error, .. } => Err(away(&error.map_or_else(|| "no state".to_owned(), |error| error.description))),
    }
}

/// Makes the stream if it is missing, and compares its settings. Safe if other nodes do the same.
pub(super) async fn ensure(client: &Client, timeout: Duration) -> Result<(), NatsError> {
    let mut context = jetstream::new(client.clone());
    context.set_timeout(timeout);
    let found = match context.get_stream(NAME).await {
        Ok(stream) => stream,
        Err(error) => match error.kind() {
            GetStreamErrorKind::JetStream(error) if error.error_code() == ErrorCode::STREAM_NOT_FOUND => {
                context.create_stream(required_config()).await.map_err(|error| match error.kind() {
                    CreateStreamErrorKind::TimedOut => NatsError::Away(error.to_string()),
                    CreateStreamErrorKind::JetStreamUnavailable => NatsError::NoJetStream,
                    _ => NatsError::Stream(error.to_string()),
                })?
            }
            GetStreamErrorKind::JetStream(error)
                if error.error_code() == ErrorCode::JETSTREAM_NOT_ENABLED_FOR_ACCOUNT =>
            {
                return Err(NatsError::NoJetStream);
            }
            GetStreamErrorKind::JetStream(_) => return Err(NatsError::Stream(error.to_string())),
            // The error does not tell a server without JetStream from a silent one.
            _ if client.server_info().jetstream => return Err(NatsError::Away(error.to_string())),
            _ => return Err(NatsError::NoJetStream),
        },
    };
    let differences = differences(&found.cached_info().config);
    if differences.is_empty() { Ok(()) } else { Err(NatsError::Settings(differences)) }
}

fn required_config() -> Config {
    Config {
        name: NAME.to_owned(),
        subjects: SUBJECTS.map(str::to_owned).to_vec(),
        storage: StorageType::File,
        retention: RetentionPolicy::Limits,
        max_age: MAX_AGE,
        duplicate_window: DUPLICATE_WINDOW,
        republish: Some(republish()),
        max_consumers: -1,
        max_messages: -1,
        max_messages_per_subject: -1,
        max_bytes: -1,
        max_message_size: -1,
        num_replicas: 1,
        ..Config::default()
    }
}

fn republish() -> Republish {
    Republish { source: ">".to_owned(), destination: "live.>".to_owned(), headers_only: false }
}

/// The settings that would break a guarantee, each as `setting is A, must be B`. Replicas, placement and a limit of
/// bytes are the operator's choice.
fn differences(found: &Config) -> Vec<String> {
    fn compare<T: PartialEq + std::fmt::Debug>(setting: &str, found: T, required: T) -> Option<String> {
        (found != required).then(|| format!("{setting} is {found:?}, must be {required:?}"))
    }
    let mut subjects = found.subjects.clone();
    subjects.sort();
    let unlimited = |limit: i64| if limit > 0 { limit } else { -1 };
    let large_enough = |size: i32| size <= 0 || size >= 256 * 1024;
    [
        compare("subjects", subjects, SUBJECTS.map(str::to_owned).to_vec()),
        compare("storage", found.storage, StorageType::File),
        compare("retention", found.retention, RetentionPolicy::Limits),
        compare("max_age", found.max_age, MAX_AGE),
        compare("duplicate_window", found.duplicate_window, DUPLICATE_WINDOW),
        compare("republish", found.republish.clone(), Some(republish())),
        compare("max_msgs_per_subject", unlimited(found.max_messages_per_subject), -1),
        compare("max_msg_size of 256 KiB or more", large_enough(found.max_message_size), true),
        compare("no_ack", found.no_ack, false),
        compare("sealed", found.sealed, false),
    ]
    .into_iter()
    .flatten()
    .collect()
}
