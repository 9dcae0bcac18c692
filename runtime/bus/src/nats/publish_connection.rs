//! The connection that publishes. When it breaks, all queued and unanswered messages are dropped, here and in the
//! kernel, and their callers get an error. The client library would keep its queue during an outage and send it
//! afterwards, when the stream has forgotten the message ids.
//!
//! Invariant: a message without an answer after [`CALL_TIMEOUT`] ends the connection, because it may still be under
//! way.
use std::convert::Infallible;

use rollcall_schema::Sid;
use tokio::{
    sync::mpsc,
    time::{Instant, MissedTickBehavior, interval, sleep, sleep_until, timeout},
};

use super::{
    CALL_TIMEOUT,
    connection::{ConnectionError, NatsConnection},
    in_flight::{InFlight, Request},
    message::away,
    servers::{PING_INTERVAL, RECONNECT_DELAY, Servers},
    wire::Op,
};
use rollcall_base::names;

/// A server that leaves this many pings unanswered is given up.
const MAX_UNANSWERED: u32 = 2;

/// The task of a publishing connection.
pub(super) struct PublishConnection {
    servers: Servers,
    /// The connection's name, which the server shows.
    name: &'static str,
    requests: mpsc::Receiver<Request>,
    in_flight: InFlight,
    /// The subject of answers without its last token, which is the message's number.
    inbox: String,
    unanswered: u32,
}

impl PublishConnection {
    pub(super) fn new(servers: Servers, name: &'static str, requests: mpsc::Receiver<Request>) -> Self {
        Self { servers, name, requests, in_flight: InFlight::new(), inbox: String::new(), unanswered: 0 }
    }

    /// Publishes until this future is dropped, on one connection after another.
    pub(super) async fn run(mut self, connection: NatsConnection) {
        let mut next = Some(connection);
        loop {
            if let Some(connection) = next.take() {
                let endpoint = connection.endpoint.clone();
                let Err(error) = self.serve(connection).await;
                if let ConnectionError::Silent = error {
                    self.servers.note_failure(&endpoint);
                }
                metrics::counter!(names::BACKEND_ERRORS, "backend" => "nats", "operation" => "publish").increment(1);
                tracing::warn!(%error, "the publishing connection to NATS broke");
                self.in_flight.fail_all(&error.to_string());
            }
            let (servers, name) = (self.servers.clone(), self.name);
            let connecting = async {
                sleep(RECONNECT_DELAY).await;
                servers.open(name).await
            };
            tokio::pin!(connecting);
            next = loop {
                tokio::select! {
                    connection = &mut connecting => break connection.ok(),
                    request = self.requests.recv() => {
                        let Some(request) = request else { return };
                        request.answer.send(vec![Err(away("not connected")); request.batch.len()]).ok();
                    }
                }
            };
        }
    }

    async fn serve(&mut self, mut connection: NatsConnection) -> Result<Infallible, ConnectionError> {
        let mut clock = interval(PING_INTERVAL);
        clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
        self.unanswered = 0;
        self.inbox = format!("_INBOX.{}.", Sid::random());
        connection.write(format!("SUB {}* 1\r\n", self.inbox).as_bytes()).await?;
        let limit = connection.info.max_payload;
        loop {
            let deadline = self.in_flight.deadline();
            tokio::select! {
                read = connection.read() => {
                    read?;
                    if self.process_input(&mut connection)? {
                        connection.write(b"PONG\r\n").await?;
                    }
                }
                Some(request) = self.requests.recv(), if self.in_flight.has_capacity() => self.in_flight.add(request, limit),
                () = sleep_until(deadline.unwrap_or_else(Instant::now)), if deadline.is_some() => return Err(ConnectionError::Silent),
                _ = clock.tick() => {
                    if self.unanswered == MAX_UNANSWERED {
                        return Err(ConnectionError::Silent);
                    }
                    self.unanswered += 1;
                    connection.write(b"PING\r\n").await?;
                }
            }
            // Requests that came at the same time are sent in one write.
            while self.in_flight.has_capacity()
                && let Ok(request) = self.requests.try_recv()
            {
                self.in_flight.add(request, limit);
            }
            let out = self.in_flight.outgoing(&self.inbox);
            if !out.is_empty() {
                timeout(CALL_TIMEOUT, connection.write(&out)).await.unwrap_or(Err(ConnectionError::Silent))?;
            }
        }
    }

    /// Handles the bytes that were read. Returns true if the server sent a PING.
    fn process_input(&mut self, connection: &mut NatsConnection) -> Result<bool, ConnectionError> {
        let mut pinged = false;
        while let Some(op) = connection.next()? {
            match op {
                Op::Message(message) => {
                    let number = message.subject.strip_prefix(&self.inbox).and_then(|number| number.parse().ok());
                    if let Some(number) = number {
                        self.in_flight.handle_answer(number, message.head, message.body);
                    }
                }
                Op::Ping => pinged = true,
                Op::Pong => self.unanswered = 0,
                Op::Error(error) => {
                    let error = String::from_utf8_lossy(error).into_owned();
                    tracing::warn!(error, "NATS refuses to publish");
                    self.in_flight.forbidden(&error);
                }
                Op::Info(_) | Op::Ok | Op::Dropped(_) => {}
            }
        }
        Ok(pinged)
    }
}
