//! The stream: its settings and its state.
//!
//! Invariant: a node only works on a stream whose settings keep the promises of PROTOCOL 3. Settings that may differ
//! are left unchanged.
use std::time::Duration;

use async_nats::jetstream::{
    ErrorCode,
    context::{CreateStreamErrorKind, GetStreamErrorKind},
    stream::{Config, DiscardPolicy, Republish, RetentionPolicy, StorageType},
};
use serde::{Deserialize, de::IgnoredAny};
use serde_json::Value;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::{
    NatsError,
    next_event::read_error,
    options::{DUPLICATE_WINDOW, StreamOptions},
    refusals,
    work_client::JetStream,
};
use crate::{BusError, Position};

/// The request for the stream's state.
pub(super) const INFO: &str = "STREAM.INFO";
const SUBJECTS: [&str; 2] = ["classroom.>", "lesson.>"];
/// A stream begins to forget events when only this part of a limit is left: two minutes of an hour.
const NEAR: u64 = 30;

/// The state of the stream.
#[derive(Clone, Debug)]
pub(super) struct State {
    /// When the stream was made. This names the epoch of its offsets.
    pub(super) epoch: String,
    /// The first event that the stream still holds.
    pub(super) first: u64,
    /// The last event. It is before the first if the stream holds none.
    pub(super) last: u64,
    /// The stream's size in bytes.
    pub(super) bytes: u64,
    /// The stream's limit in bytes. `None` if it has no limit.
    pub(super) max_bytes: Option<u64>,
    /// Whether the stream's age or size makes it forget its oldest events soon.
    pub(super) forgets: bool,
    /// The server that leads the stream. `None` if its server is in no cluster.
    pub(super) leader: Option<String>,
    /// Whether several servers hold the stream. Those that do not lead it may be behind for a moment.
    pub(super) replicated: bool,
    /// The settings that break a promise. They were changed after this node started.
    pub(super) broken: Vec<String>,
}

#[cfg(test)]
impl State {
    /// Returns the state of a healthy stream that has the events through this offset.
    pub(super) fn through(epoch: &str, last: u64) -> Self {
        Self {
            epoch: epoch.to_owned(),
            first: 1,
            last,
            bytes: 0,
            max_bytes: None,
            forgets: false,
            leader: None,
            replicated: false,
            broken: Vec::new(),
        }
    }
}

impl State {
    /// Returns whether the stream still holds every event after this position, and its settings promise that.
    pub(super) fn covers(&self, after: &Position) -> bool {
        let offset = after.offset.0;
        self.broken.is_empty()
            && self.epoch == after.epoch
            && offset <= self.last
            && (offset == self.last || self.first <= offset + 1)
    }
}

/// Why there is no [`State`].
#[derive(Clone, Debug, thiserror::Error)]
pub(super) enum StateError {
    #[error("there is no stream")]
    Missing,
    #[error("{0}")]
    Away(String),
}

#[derive(Deserialize)]
struct Answer {
    created: Option<String>,
    state: Option<Sequences>,
    #[serde(default)]
    config: Value,
    #[serde(default)]
    cluster: Cluster,
    error: Option<Refusal>,
}

#[derive(Default, Deserialize)]
struct Cluster {
    #[serde(default)]
    leader: Option<String>,
    #[serde(default)]
    replicas: Vec<IgnoredAny>,
}

#[derive(Deserialize)]
struct Sequences {
    first_seq: u64,
    last_seq: u64,
    bytes: u64,
    /// When the first event was stored.
    #[serde(default)]
    first_ts: String,
}

#[derive(Deserialize)]
struct Limits {
    /// The limit in bytes. It is negative if there is no limit.
    max_bytes: i64,
    /// The age in nanoseconds. 0 if there is no limit.
    #[serde(default)]
    max_age: u64,
}

impl Sequences {
    /// Returns whether the stream will soon forget its first event. The event's age is measured with this machine's
    /// clock, so the result is a guess.
    fn forgets(&self, limits: &Limits) -> bool {
        let stored = OffsetDateTime::parse(&self.first_ts, &Rfc3339).ok();
        let age = stored.and_then(|at| u64::try_from((OffsetDateTime::now_utc() - at).whole_nanoseconds()).ok());
        let is_near = |value: u64, limit: u64| limit > 0 && value >= limit - limit / NEAR;
        age.is_some_and(|age| is_near(age, limits.max_age))
            || u64::try_from(limits.max_bytes).is_ok_and(|max| is_near(self.bytes, max))
    }
}

#[derive(Deserialize)]
struct Refusal {
    err_code: u64,
    description: String,
}

/// Asks for the state on the connection of the client library.
pub(super) async fn state(jetstream: &JetStream) -> Result<State, StateError> {
    let answer = jetstream.ask(INFO, "").await;
    parse_state(&answer.map_err(|error| StateError::Away(error.to_string()))?)
}

/// Checks that the stream is still the one of this epoch, for a reader that has just read from it.
pub(super) async fn check_epoch(jetstream: &JetStream, epoch: &str) -> Result<(), BusError> {
    let now = state(jetstream).await.map_err(read_error)?.epoch;
    if now == epoch { Ok(()) } else { Err(read_error("it was created again meanwhile")) }
}

/// Reads an answer to [`INFO`]. If JetStream is not enabled, the server itself sends an empty answer.
pub(super) fn parse_state(answer: &[u8]) -> Result<State, StateError> {
    let away = |error: &dyn std::fmt::Display| StateError::Away(error.to_string());
    if answer.is_empty() {
        return Err(away(&"JetStream is not there"));
    }
    let answer: Answer = serde_json::from_slice(answer).map_err(|error| away(&error))?;
    match answer {
        Answer { created: Some(epoch), state: Some(state), config, cluster, .. } => {
            let limits = Limits::deserialize(&config).ok();
            let max_bytes = limits.as_ref().and_then(|limits| u64::try_from(limits.max_bytes).ok());
            let forgets = limits.is_some_and(|limits| state.forgets(&limits));
            // A later server may have settings that the library does not know. The start has compared those that count.
            let broken = Config::deserialize(&config).map(|config| differences(&config)).unwrap_or_default();
            let Sequences { first_seq: first, last_seq: last, bytes, .. } = state;
            let Cluster { leader, replicas } = cluster;
            let replicated = !replicas.is_empty();
            Ok(State { epoch, first, last, bytes, max_bytes, forgets, leader, replicated, broken })
        }
        Answer { error: Some(error), .. } if error.err_code == ErrorCode::STREAM_NOT_FOUND.0 => {
            Err(StateError::Missing)
        }
        Answer { error, .. } => Err(away(&error.map_or_else(|| "no state".to_owned(), |error| error.description))),
    }
}

/// Makes the stream if it is missing, and compares its settings. Several nodes may do this at the same time.
pub(super) async fn ensure(jetstream: &JetStream) -> Result<(), NatsError> {
    let (context, wanted) = (jetstream.context(), &jetstream.options().stream);
    let found = match context.get_stream(&wanted.name).await {
        Ok(stream) => stream,
        Err(error) => match error.kind() {
            GetStreamErrorKind::JetStream(error) if error.error_code() == ErrorCode::STREAM_NOT_FOUND => {
                context.create_stream(required_config(wanted)).await.map_err(|error| match error.kind() {
                    CreateStreamErrorKind::TimedOut => NatsError::Away(error.to_string()),
                    CreateStreamErrorKind::JetStreamUnavailable => NatsError::NoJetStream,
                    CreateStreamErrorKind::JetStream(error) => {
                        let why = refusals::explain(error.error_code().0, &error.to_string());
                        NatsError::Stream(format!("the stream {} cannot be made: {why}", wanted.name))
                    }
                    _ => NatsError::Stream(format!("the stream {} cannot be made: {error}", wanted.name)),
                })?
            }
            GetStreamErrorKind::JetStream(error)
                if error.error_code() == ErrorCode::JETSTREAM_NOT_ENABLED_FOR_ACCOUNT =>
            {
                return Err(NatsError::NoJetStream);
            }
            GetStreamErrorKind::JetStream(_) => return Err(NatsError::Stream(error.to_string())),
            // The library's error does not tell a server without JetStream from a silent one.
            _ if jetstream.is_enabled() => return Err(NatsError::Away(error.to_string())),
            _ => return Err(NatsError::NoJetStream),
        },
    };
    let found = &found.cached_info().config;
    let differences = differences(found);
    if !differences.is_empty() {
        return Err(NatsError::Settings { stream: wanted.name.clone(), differences });
    }
    let kept = tolerated(found, &required_config(wanted));
    if !kept.is_empty() {
        tracing::info!(stream = wanted.name, kept = kept.join("; "), "the stream keeps settings of its own");
    }
    Ok(())
}

fn required_config(wanted: &StreamOptions) -> Config {
    Config {
        name: wanted.name.clone(),
        subjects: SUBJECTS.map(str::to_owned).to_vec(),
        storage: if wanted.in_memory { StorageType::Memory } else { StorageType::File },
        retention: RetentionPolicy::Limits,
        max_age: wanted.max_age,
        duplicate_window: DUPLICATE_WINDOW,
        republish: Some(republish()),
        max_consumers: -1,
        max_messages: -1,
        max_messages_per_subject: -1,
        max_bytes: wanted.max_bytes.map_or(-1, |bytes| i64::try_from(bytes).unwrap_or(i64::MAX)),
        max_message_size: -1,
        num_replicas: wanted.replicas,
        ..Config::default()
    }
}

fn republish() -> Republish {
    Republish { source: ">".to_owned(), destination: "live.>".to_owned(), headers_only: false }
}

/// Returns the text `setting is A, must be B`, if the two differ.
fn compare<T: PartialEq + std::fmt::Debug>(setting: &str, found: T, required: T) -> Option<String> {
    (found != required).then(|| format!("{setting} is {found:?}, must be {required:?}"))
}

/// Returns the settings that would break a promise.
fn differences(found: &Config) -> Vec<String> {
    let mut subjects = found.subjects.clone();
    subjects.sort();
    let unlimited = |limit: i64| if limit > 0 { limit } else { -1 };
    let large_enough = |size: i32| size <= 0 || size >= 256 * 1024;
    [
        compare("subjects", subjects, SUBJECTS.map(str::to_owned).to_vec()),
        compare("subject_transform", found.subject_transform.is_some(), false),
        compare("retention", found.retention, RetentionPolicy::Limits),
        compare("discard", found.discard, DiscardPolicy::Old),
        compare("duplicate_window", found.duplicate_window, found.duplicate_window.max(DUPLICATE_WINDOW)),
        compare("republish", found.republish.clone(), Some(republish())),
        compare("max_msgs_per_subject", unlimited(found.max_messages_per_subject), -1),
        compare("max_msg_size of 256 KiB or more", large_enough(found.max_message_size), true),
        compare("no_ack", found.no_ack, false),
        compare("deny_delete", found.deny_delete, false),
        compare("sealed", found.sealed, false),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// Returns the settings that differ from the configured ones, and may.
fn tolerated(found: &Config, configured: &Config) -> Vec<String> {
    let differs = |setting: &str, found: String, configured: String| {
        (found != configured).then(|| format!("{setting} is {found}, configured is {configured}"))
    };
    let age = |age: Duration| format!("{age:?}");
    // A server may write "no limit" in two ways.
    let limit = |limit: i64| if limit > 0 { limit.to_string() } else { "none".to_owned() };
    [
        differs("replicas", found.num_replicas.to_string(), configured.num_replicas.to_string()),
        differs("max_age", age(found.max_age), age(configured.max_age)),
        differs("max_bytes", limit(found.max_bytes), limit(configured.max_bytes)),
        differs("storage", format!("{:?}", found.storage), format!("{:?}", configured.storage)),
    ]
    .into_iter()
    .flatten()
    .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use time::ext::NumericalDuration;

    use super::*;

    #[test]
    fn a_stream_forgets_near_its_limits() {
        let forgets = |age: time::Duration, bytes: u64| {
            let at = OffsetDateTime::now_utc() - age;
            let first = format!("{}T{:02}:{:02}:{:02}.5Z", at.date(), at.hour(), at.minute(), at.second());
            let state = json!({"first_seq": 3, "last_seq": 9, "bytes": bytes, "first_ts": first});
            let config = json!({"max_bytes": 3_000_000, "max_age": 3_600_000_000_000_u64});
            let answer = json!({"created": "2026-09-01T12:00:00Z", "state": state, "config": config});
            parse_state(answer.to_string().as_bytes()).expect("a state").forgets
        };
        assert_eq!([forgets(0.seconds(), 0), forgets(57.minutes(), 2_800_000)], [false; 2]);
        assert_eq!([forgets(59.minutes(), 0), forgets(0.seconds(), 2_950_000)], [true; 2]);
        let unlimited = json!({
            "created": "2026-09-01T12:00:00Z", "config": {"max_bytes": -1},
            "state": {"first_seq": 0, "last_seq": 0, "bytes": 0, "first_ts": "0001-01-01T00:00:00Z"},
        });
        assert!(!parse_state(unlimited.to_string().as_bytes()).expect("a state").forgets);
    }
}
