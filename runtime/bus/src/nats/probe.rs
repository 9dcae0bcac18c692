//! Checks that the node may do on NATS what it needs to serve: publish, receive the copy, read the stream, and wake
//! other nodes' relays.
//!
//! A probe has a connection of its own, because the server reports a missing right on the connection that lacks it,
//! without naming the request. The report comes before the answer to the PING that follows.
//!
//! Invariant: the subjects belong to no classroom and no lesson, so no client sees a probe. A probe deletes what it
//! stores.
use std::collections::BTreeSet;

use rollcall_schema::{Offset, Sid, subject::LIVE_PREFIX};
use tokio::time::{Instant, timeout_at};

use super::{
    CALL_TIMEOUT,
    connection::{ConnectionError, NatsConnection},
    message::{self, PublishFailure},
    relay_wakes,
    servers::Servers,
    wire::Op,
};
use crate::{BusError, ProbeError};

/// The subjects of probes. No id of a classroom or lesson contains a `$`.
pub(super) const SUBJECTS: [&str; 2] = ["classroom.$probe.rollcall", "lesson.$probe.rollcall"];
/// A name that no stream has, so that the stream that gets the message refuses it.
pub(super) const NO_STREAM: &str = "$none";
/// The size of a probe. It is larger than an event of presence, so if a probe fits into the stream, an event does.
const BODY: usize = 1024;
/// The requests that a node sends to the stream.
const REQUESTS: [(&str, &str); 5] = [
    ("STREAM.INFO", ""),
    ("STREAM.MSG.GET", ""),
    ("STREAM.MSG.DELETE", ""),
    ("CONSUMER.CREATE", ".probe"),
    ("CONSUMER.MSG.NEXT", ".probe"),
];
/// The request that is also sent while there is no stream.
const CREATE: (&str, &str) = ("STREAM.CREATE", "");
/// The number of the subscription for answers. Those of [`SUBJECTS`] and of the wake-up follow.
const ANSWERS: u64 = 1;
/// The subjects for which rights are granted.
const GRANTED: [&str; 5] = ["classroom.>", "lesson.>", "live.>", "_INBOX.>", "rollcall.wake.>"];

/// What a probe does to the stream.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Depth {
    /// The probe stores nothing, because each message names a stream that does not exist. With `create` the probe also
    /// checks the right to create the stream.
    Rights { create: bool },
    /// The probe stores one message for each subject, waits for its copy, and deletes it.
    Write,
}

struct Probe {
    servers: Servers,
    connection: NatsConnection,
    inbox: String,
    /// For each of [`SUBJECTS`], the answer to its message.
    answers: [Option<Result<Offset, PublishFailure>>; 2],
    /// Whether the copies of both messages and the wake-up were received.
    heard: [bool; 3],
    /// How many messages were deleted.
    deleted: usize,
    /// The rights that the server refused, in the words for a grant.
    lacking: BTreeSet<String>,
    ponged: bool,
}

/// Probes on a connection of its own, in less than [`CALL_TIMEOUT`].
pub(super) async fn probe(servers: &Servers, depth: Depth) -> Result<(), ProbeError> {
    let deadline = Instant::now() + CALL_TIMEOUT;
    let connection = timeout_at(deadline, servers.open("rollcall probe")).await;
    let connection = connection.map_err(|_| away("no answer in time"))?.map_err(|error| away(&error.to_string()))?;
    let mut probe = Probe {
        servers: servers.clone(),
        connection,
        inbox: format!("_INBOX.{}.", Sid::random()),
        answers: [None, None],
        heard: [false; 3],
        deleted: 0,
        lacking: BTreeSet::new(),
        ponged: false,
    };
    let ended = timeout_at(deadline, probe.run(depth)).await;
    match ended {
        Ok(Err(error)) => Err(away(&error.to_string())),
        Ok(Ok(())) | Err(_) => probe.verdict(depth),
    }
}

impl Probe {
    async fn run(&mut self, depth: Depth) -> Result<(), ConnectionError> {
        let mut ask = format!("SUB {}* {ANSWERS}\r\n", self.inbox);
        let wake = format!("{}$probe.{}", relay_wakes::PREFIX, Sid::random());
        let copies = SUBJECTS.map(|subject| format!("{LIVE_PREFIX}{subject}"));
        for (number, subject) in (2..).zip(copies.iter().chain([&wake])) {
            ask.push_str(&format!("SUB {subject} {number}\r\n"));
        }
        ask.push_str(&format!("PUB {wake} 0\r\n\r\n"));
        for (number, subject) in SUBJECTS.iter().enumerate() {
            let mut head = "NATS/1.0\r\n".to_owned();
            if let Depth::Rights { .. } = depth {
                head.push_str(&format!("Nats-Expected-Stream: {NO_STREAM}\r\n"));
            }
            head.push_str("\r\n");
            let (length, all) = (head.len(), head.len() + BODY);
            ask.push_str(&format!("HPUB {subject} {}{number} {length} {all}\r\n{head}{:BODY$}\r\n", self.inbox, "{}"));
        }
        let create = (depth == Depth::Rights { create: true }).then_some(CREATE);
        for (number, (request, suffix)) in REQUESTS.into_iter().chain(create).enumerate() {
            let subject = self.servers.options().api(request) + suffix;
            // The body is empty, so the server refuses every request but the first as invalid. If the user lacks the
            // right, it reports that instead.
            ask.push_str(&format!("PUB {subject} {}api{number} 0\r\n\r\n", self.inbox));
        }
        ask.push_str("PING\r\n");
        self.connection.write(ask.as_bytes()).await?;
        while !self.is_done(depth) {
            self.connection.read().await?;
            let delete = self.take()?;
            if !delete.is_empty() {
                self.connection.write(delete.as_bytes()).await?;
            }
        }
        Ok(())
    }

    /// Handles the bytes that were read. Returns requests that delete the stored messages.
    fn take(&mut self) -> Result<String, ConnectionError> {
        let mut delete = String::new();
        while let Some(op) = self.connection.next()? {
            match op {
                Op::Message(message) if message.sid == ANSWERS => {
                    match message.subject.strip_prefix(&self.inbox) {
                        Some(number @ ("0" | "1")) => {
                            let answer =
                                message::parse_answer(message.head, message.body).map(|stored| Offset(stored.sequence));
                            if let Ok(offset) = &answer {
                                // The offset stays empty in the stream, and the bytes need not be overwritten.
                                let body = format!(r#"{{"seq":{offset},"no_erase":true}}"#);
                                let (inbox, length) = (&self.inbox, body.len());
                                let subject = self.servers.options().api("STREAM.MSG.DELETE");
                                delete.push_str(&format!("PUB {subject} {inbox}deleted {length}\r\n{body}\r\n"));
                            }
                            self.answers[usize::from(number == "1")] = Some(answer);
                        }
                        Some("deleted") => self.deleted += 1,
                        _ => {}
                    }
                }
                Op::Message(message) => {
                    if let Some(heard) = self.heard.get_mut(usize::try_from(message.sid - 2).unwrap_or(usize::MAX)) {
                        *heard = true;
                    }
                }
                Op::Error(error) => {
                    let error = String::from_utf8_lossy(error);
                    if error.to_ascii_lowercase().contains("permissions violation") {
                        self.lacking.insert(lacking(error.trim_matches('\'')));
                    }
                }
                Op::Pong => self.ponged = true,
                Op::Info(_) | Op::Ok | Op::Dropped(_) | Op::Ping => {}
            }
        }
        if delete.is_empty() { Ok(delete) } else { Ok(delete + "PING\r\n") }
    }

    fn is_done(&self, depth: Depth) -> bool {
        if !self.ponged {
            return false;
        }
        if !self.lacking.is_empty() {
            return true;
        }
        let [copies @ .., woken] = self.heard;
        let answered = self.answers.iter().all(Option::is_some);
        let stored = self.answers.iter().flatten().filter(|answer| answer.is_ok()).count();
        match depth {
            Depth::Rights { .. } => woken,
            Depth::Write => woken && answered && (stored < 2 || copies == [true; 2] && self.deleted == 2),
        }
    }

    fn verdict(&self, depth: Depth) -> Result<(), ProbeError> {
        let unable = |why: String| Err(ProbeError::Unable(why));
        if !self.lacking.is_empty() {
            let all: Vec<&str> = self.lacking.iter().map(String::as_str).collect();
            return unable(format!("the NATS user lacks a right: let it {}", all.join(", ")));
        }
        if !self.ponged {
            return Err(away("no answer in time"));
        }
        let [copies @ .., woken] = self.heard;
        if !woken {
            return unable("what is published on rollcall.wake.> is not heard back".to_owned());
        }
        if let Depth::Rights { .. } = depth {
            return Ok(());
        }
        for (answer, subject) in self.answers.iter().zip(SUBJECTS) {
            match answer {
                None => return Err(away(&format!("no acknowledgement of a message to {subject}"))),
                Some(Err(PublishFailure::Away(why))) => return Err(away(why)),
                Some(Err(PublishFailure::Unable(why) | PublishFailure::Refused(why))) => {
                    return unable(format!("JetStream does not store: {why}"));
                }
                Some(_) => {}
            }
        }
        if copies != [true; 2] {
            return unable("what is published is not heard back on live.>".to_owned());
        }
        if self.deleted < 2 {
            return unable("messages of the stream cannot be deleted".to_owned());
        }
        Ok(())
    }
}

/// Returns the right that a server's error is about, for an error such as `Permissions Violation for Publish to
/// "lesson.$probe.rollcall"`.
fn lacking(violation: &str) -> String {
    let mut parts = violation.split('"');
    let (Some(said), Some(subject)) = (parts.next(), parts.next()) else { return violation.to_owned() };
    let verb = if said.contains("Subscription") { "subscribe" } else { "publish" };
    let granted = GRANTED.into_iter().find(|granted| subject.starts_with(granted.trim_end_matches('>')));
    format!("{verb} to {}", granted.unwrap_or(subject))
}

fn away(why: &str) -> ProbeError {
    ProbeError::Away(BusError(why.to_owned()))
}
