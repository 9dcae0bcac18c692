//! Encodes one message, and reads its answer.
//!
//! Invariant: the encoded bytes are one message, whatever its headers contain. They are no larger than the server
//! accepts, because the server closes the connection if a message is larger.
use serde::Deserialize;

use super::refusals;
use crate::{BusError, Publication, PublishError};

/// The codes of "wrong last sequence", with and without the true sequence in the text.
const WRONG_SEQUENCE: [u64; 2] = [10_071, 10_164];
/// The code of "JetStream system temporarily unavailable": a cluster without a leader.
const UNAVAILABLE: u64 = 10_008;
/// The codes for a message, or headers, larger than the stream takes.
const TOO_LARGE: [u64; 2] = [10_054, 10_097];

#[derive(Deserialize)]
struct Answer {
    seq: Option<u64>,
    #[serde(default)]
    duplicate: bool,
    error: Option<Refusal>,
}

#[derive(Deserialize)]
struct Refusal {
    #[serde(default)]
    err_code: u64,
    #[serde(default)]
    description: String,
}

/// The answer for a message that the stream has.
#[derive(Clone, Copy)]
pub(super) struct Stored {
    pub(super) sequence: u64,
    /// Whether the stream had a message with this id already.
    pub(super) duplicate: bool,
}

/// Why a message was not stored.
pub(super) enum PublishFailure {
    Away(String),
    /// The stream answers but does not store the message, because it is full or has lost its disk.
    Unable(String),
    /// The subject's last message is not the expected one. Its sequence is included if the server tells it.
    Sequence(Option<u64>),
    Refused(String),
}

impl PublishFailure {
    pub(super) fn into_error(self) -> PublishError {
        match self {
            Self::Away(why) | Self::Unable(why) => away(&why),
            Self::Sequence(_) => PublishError::Behind,
            Self::Refused(why) => PublishError::Refused(why),
        }
    }
}

pub(super) fn away(why: &str) -> PublishError {
    PublishError::Away(BusError(why.to_owned()))
}

/// Reads the server's answer to one message.
pub(super) fn parse_answer(head: &[u8], body: &[u8]) -> Result<Stored, PublishFailure> {
    if head.starts_with(b"NATS/1.0 503") {
        return Err(PublishFailure::Away("JetStream is not there".to_owned()));
    }
    let answer: Answer = serde_json::from_slice(body).map_err(|error| PublishFailure::Away(error.to_string()))?;
    match answer {
        Answer { error: Some(Refusal { err_code, description }), .. } => Err(match err_code {
            code if WRONG_SEQUENCE.contains(&code) => {
                PublishFailure::Sequence(description.rsplit_once(": ").and_then(|(_, number)| number.parse().ok()))
            }
            code if TOO_LARGE.contains(&code) => PublishFailure::Refused(description),
            UNAVAILABLE => PublishFailure::Away(description),
            code => PublishFailure::Unable(refusals::explain(code, &description)),
        }),
        Answer { seq: Some(sequence), duplicate, .. } => Ok(Stored { sequence, duplicate }),
        Answer { .. } => Err(PublishFailure::Away("an answer without a sequence".to_owned())),
    }
}

/// Returns why the server would close the connection because of this message, or would read a different message from
/// its bytes.
pub(super) fn why_unsendable(publication: &Publication, limit: usize) -> Option<String> {
    let lines = |text: &str| text.contains(['\r', '\n']);
    let headers = publication.headers.iter().map(|(_, value)| value).chain(&publication.message_id);
    let (mut bytes, mut broken) = (publication.body.len(), false);
    for value in headers {
        bytes += value.len() + 64;
        broken |= lines(value);
    }
    if broken {
        return Some("a header has several lines".to_owned());
    }
    (bytes > limit).then(|| format!("it is larger than the server's max_payload of {limit} bytes"))
}

pub(super) fn encode(out: &mut Vec<u8>, publication: &Publication, expected: Option<u64>, reply: &str) {
    let mut head = String::from("NATS/1.0\r\n");
    let mut header = |name: &str, value: &str| head.extend([name, ": ", value, "\r\n"]);
    if let Some(id) = &publication.message_id {
        header(rollcall_schema::header::NATS_MSG_ID, id);
    }
    if let Some(expected) = expected {
        header("Nats-Expected-Last-Subject-Sequence", &expected.to_string());
    }
    for (name, value) in &publication.headers {
        header(name, value);
    }
    head.push_str("\r\n");
    let (subject, all) = (&publication.subject, head.len() + publication.body.len());
    out.extend_from_slice(format!("HPUB {subject} {reply} {} {all}\r\n{head}", head.len()).as_bytes());
    out.extend_from_slice(&publication.body);
    out.extend_from_slice(b"\r\n");
}
