//! The connection that publishes. Nothing outlives it: what is queued or unanswered when it breaks is forgotten, here and
//! in the kernel, and its callers are told. The client library keeps its queue over an outage of any length and sends it
//! afterwards, when the stream has forgotten the message ids.
//!
//! Invariant: a message that has no answer after [`ANSWER`] ends the connection, for it may still be on its way.
use std::convert::Infallible;

use rollcall_schema::Sid;
use tokio::{
    sync::mpsc,
    time::{Instant, MissedTickBehavior, interval, sleep, sleep_until, timeout},
};

use super::{
    ANSWER,
    connection::{LinkError, NatsConnection},
    flight::{Flight, Request},
    message::away,
    servers::{PAUSE, PING, Servers},
    wire::Op,
};
use rollcall_base::names;

/// A server that leaves so many of our pings unanswered is given up.
const UNANSWERED: u32 = 3;

/// See the module.
pub(super) struct Line {
    servers: Servers,
    requests: mpsc::Receiver<Request>,
    flight: Flight,
    /// Where answers come; the last token is the message's number.
    inbox: String,
    unanswered: u32,
}

impl Line {
    pub(super) fn new(servers: Servers, requests: mpsc::Receiver<Request>) -> Self {
        Self { servers, requests, flight: Flight::new(), inbox: String::new(), unanswered: 0 }
    }

    /// Publishes until it is dropped, on one connection after another.
    pub(super) async fn run(mut self, link: NatsConnection) {
        let mut next = Some(link);
        loop {
            if let Some(link) = next.take() {
                let Err(error) = self.serve(link).await;
                metrics::counter!(names::BACKEND_ERRORS, "backend" => "nats", "operation" => "publish").increment(1);
                tracing::warn!(%error, "the publishing connection to NATS broke");
                self.flight.forget(&error.to_string());
            }
            let servers = self.servers.clone();
            let connecting = async {
                sleep(PAUSE).await;
                servers.open("rollcall publish").await
            };
            tokio::pin!(connecting);
            next = loop {
                tokio::select! {
                    link = &mut connecting => break link.ok(),
                    request = self.requests.recv() => {
                        let Some(request) = request else { return };
                        request.answer.send(vec![Err(away("not connected")); request.batch.len()]).ok();
                    }
                }
            };
        }
    }

    async fn serve(&mut self, mut link: NatsConnection) -> Result<Infallible, LinkError> {
        let mut clock = interval(PING);
        clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
        self.unanswered = 0;
        self.inbox = format!("_INBOX.{}.", Sid::random());
        link.write(format!("SUB {}* 1\r\n", self.inbox).as_bytes()).await?;
        let limit = link.max_payload();
        loop {
            let due = self.flight.due();
            tokio::select! {
                read = link.read() => {
                    read?;
                    if self.take(&mut link)? {
                        link.write(b"PONG\r\n").await?;
                    }
                }
                Some(request) = self.requests.recv(), if self.flight.has_room() => self.flight.begin(request, limit),
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => return Err(LinkError::Silent),
                _ = clock.tick() => {
                    if self.unanswered == UNANSWERED {
                        return Err(LinkError::Silent);
                    }
                    self.unanswered += 1;
                    link.write(b"PING\r\n").await?;
                }
            }
            let out = self.flight.outgoing(&self.inbox);
            if !out.is_empty() {
                timeout(ANSWER, link.write(&out)).await.unwrap_or(Err(LinkError::Silent))?;
            }
        }
    }

    /// Takes what was read. True where the server wants to know whether we are here.
    fn take(&mut self, link: &mut NatsConnection) -> Result<bool, LinkError> {
        let mut pinged = false;
        while let Some(op) = link.next()? {
            match op {
                Op::Message(message) => {
                    let number = message.subject.strip_prefix(&self.inbox).and_then(|number| number.parse().ok());
                    if let Some(number) = number {
                        self.flight.take(number, message.head, message.body);
                    }
                }
                Op::Ping => pinged = true,
                Op::Pong => self.unanswered = 0,
                Op::Error(error) => {
                    let error = String::from_utf8_lossy(error).into_owned();
                    tracing::warn!(error, "NATS refuses to publish");
                    self.flight.forbidden(&error);
                }
                Op::Info(_) | Op::Ok | Op::Dropped => {}
            }
        }
        Ok(pinged)
    }
}
