//! Asks the stream for the first event at or after an offset.
use std::time::Duration;

use base64::{Engine, engine::general_purpose::STANDARD};
use rollcall_schema::Offset;
use serde::Deserialize;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::{wire, work_client::JetStream};
use crate::{
    BusError, Incoming, headers,
    presence::{PresenceEvent, presence_event},
};

/// The server's code for "no message found".
const NO_MESSAGE: u64 = 10037;

#[derive(Deserialize)]
struct Answer {
    message: Option<Stored>,
    error: Option<Refusal>,
}

#[derive(Deserialize)]
struct Refusal {
    err_code: u64,
    description: String,
}

/// A message as the stream returns it, with headers and data in base64.
#[derive(Deserialize)]
pub(super) struct Stored {
    subject: String,
    pub(super) seq: u64,
    #[serde(default)]
    hdrs: String,
    #[serde(default)]
    data: String,
    /// When the message was stored.
    #[serde(default)]
    time: String,
}

impl Stored {
    pub(super) fn presence(self) -> Option<PresenceEvent> {
        let headers = STANDARD.decode(self.hdrs).ok()?;
        let headers = String::from_utf8_lossy(&headers);
        let body = STANDARD.decode(self.data).ok()?;
        presence_event(&self.subject, wire::headers(&headers), self.seq, Duration::ZERO, body.into())
    }

    pub(super) fn event(self) -> Option<Incoming> {
        // The base64 is valid, because the server wrote it. Its publisher chose the headers, and a header that is not
        // UTF-8 is none that the gateway reads.
        let headers = STANDARD.decode(self.hdrs).unwrap_or_default();
        let headers = String::from_utf8_lossy(&headers);
        let body = STANDARD.decode(self.data).unwrap_or_default();
        // The clocks may differ, so an age is never negative.
        let stored = OffsetDateTime::parse(&self.time, &Rfc3339).ok();
        let age = stored.and_then(|at| (OffsetDateTime::now_utc() - at).try_into().ok());
        headers::incoming(&self.subject, wire::headers(&headers), Offset(self.seq), age, body.into())
    }
}

/// Returns the first event of this filter at or after an offset.
pub(super) async fn next_event(jetstream: &JetStream, filter: &str, from: u64) -> Result<Option<Stored>, BusError> {
    let request = format!(r#"{{"seq":{from},"next_by_subj":"{filter}"}}"#);
    let answer = jetstream.ask("STREAM.MSG.GET", request).await.map_err(read_error)?;
    let answer: Answer = serde_json::from_slice(&answer).map_err(read_error)?;
    match answer {
        Answer { message: Some(stored), .. } => Ok(Some(stored)),
        Answer { error: Some(error), .. } if error.err_code == NO_MESSAGE => Ok(None),
        Answer { error, .. } => {
            Err(read_error(error.map_or_else(|| "nothing said".to_owned(), |error| error.description)))
        }
    }
}

/// Returns the error for a read that failed.
pub(super) fn read_error(error: impl std::fmt::Display) -> BusError {
    BusError(format!("reading the stream: {error}"))
}
