//! A WebSocket client for tests, written from RFC 6455 and PROTOCOL 2 alone.
//!
//! The client answers pings while one of its methods runs. Every wait has a deadline, and every error says what came
//! instead.

mod answer;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::handshake::client::Request;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::{WebSocketStream, client_async_with_config};

pub use answer::{ClientError, Closing, Event};
use answer::{as_event, ended_without_close};

/// How long an answer may take. This is longer than the gateway's own limits.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);
/// The size of the buffer for reads in bytes. The library fills it with zeros before each read, and its default is
/// 128 KiB.
const READ_BUFFER: usize = 16 * 1024;

/// A client with one connection.
#[derive(Debug)]
pub struct Client {
    socket: WebSocketStream<TcpStream>,
    /// Events that came while the client waited for an answer.
    events: VecDeque<Event>,
    last_ref: u64,
    session_error: Option<Value>,
}

impl Client {
    /// Upgrades at `/ws`.
    ///
    /// # Errors
    /// Returns an error if no connection can be made, or the upgrade is refused.
    pub async fn connect(address: SocketAddr) -> Result<Self, ClientError> {
        Self::connect_with(address, "/ws", &[]).await
    }

    /// Upgrades with this path (and query) and further headers.
    ///
    /// # Errors
    /// Returns an error if no connection can be made, or the upgrade is refused.
    ///
    /// # Panics
    /// Panics if the path or a header is invalid in HTTP.
    pub async fn connect_with(
        address: SocketAddr,
        path: &str,
        headers: &[(&'static str, &str)],
    ) -> Result<Self, ClientError> {
        let mut request: Request = format!("ws://{address}{path}").into_client_request()?;
        for (name, value) in headers {
            let value = value.parse().expect("a header's value");
            request.headers_mut().insert(*name, value);
        }
        let upgrade = async {
            let stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            let config = WebSocketConfig::default().read_buffer_size(READ_BUFFER);
            Ok::<_, ClientError>(client_async_with_config(request, stream, Some(config)).await?.0)
        };
        let limit = timeout(ANSWER_LIMIT, upgrade).await;
        Ok(Self {
            socket: limit.map_err(|_| ClientError::Silence(ANSWER_LIMIT))??,
            events: VecDeque::new(),
            last_ref: 0,
            session_error: None,
        })
    }

    /// Sends a connect_request. Returns the payload of connect_success.
    ///
    /// # Errors
    /// Returns an error if anything but connect_success comes.
    pub async fn connect_request(
        &mut self,
        token: &str,
        classroom_id: &str,
        agent_label: &str,
    ) -> Result<Value, ClientError> {
        let payload = json!({"token": token, "classroom_id": classroom_id, "agent_label": agent_label});
        self.connect_request_with(payload).await
    }

    /// Sends a connect_request with any payload. Returns the payload of connect_success.
    ///
    /// # Errors
    /// Returns an error if anything but connect_success comes.
    pub async fn connect_request_with(&mut self, payload: Value) -> Result<Value, ClientError> {
        self.send(&json!({"type": "connect_request", "payload": payload})).await?;
        // connect_success is the first frame that the client gets.
        let mut answer = self.next_message(ANSWER_LIMIT).await?;
        if answer["type"] != "connect_success" {
            return Err(ClientError::Unexpected(answer));
        }
        Ok(answer["payload"].take())
    }

    /// Sends a join_lesson. Returns its ack, a success or an error.
    ///
    /// # Errors
    /// Returns an error if no ack comes.
    pub async fn join_lesson(&mut self, lesson_id: &str) -> Result<Value, ClientError> {
        self.request("join_lesson", json!({"lesson_id": lesson_id})).await
    }

    /// Sends a request with a fresh `ref`. Returns its ack. Events that come before the ack are kept for
    /// [`next_event`](Self::next_event).
    ///
    /// # Errors
    /// Returns an error if no ack comes.
    pub async fn request(&mut self, name: &str, payload: Value) -> Result<Value, ClientError> {
        self.last_ref += 1;
        let reference = self.last_ref;
        self.send(&json!({"type": name, "ref": reference, "payload": payload})).await?;
        let deadline = Instant::now() + ANSWER_LIMIT;
        loop {
            let message = self.message_until(deadline, ANSWER_LIMIT).await?;
            if message["type"] == "ack" && message["ref"] == reference {
                return Ok(message);
            }
            match as_event(message) {
                Ok(event) => self.events.push_back(event),
                Err(message) => return Err(ClientError::Unexpected(message)),
            }
        }
    }

    /// Returns the next push; kept pushes come first.
    ///
    /// # Errors
    /// Returns an error if no push comes within `limit`, or another message comes.
    pub async fn next_event(&mut self, limit: Duration) -> Result<Event, ClientError> {
        if let Some(event) = self.events.pop_front() {
            return Ok(event);
        }
        let message = self.next_message(limit).await?;
        as_event(message).map_err(ClientError::Unexpected)
    }

    /// Expects that no push comes for the whole of `span`.
    ///
    /// # Errors
    /// Returns an error if a push comes, or the connection ends.
    pub async fn expect_silence(&mut self, span: Duration) -> Result<(), ClientError> {
        match self.next_event(span).await {
            Err(ClientError::Silence(_)) => Ok(()),
            Err(other) => Err(other),
            Ok(event) => Err(ClientError::Unexpected(event.body)),
        }
    }

    /// Returns the next message of any kind. Pings are answered meanwhile.
    ///
    /// # Errors
    /// Returns an error if no message comes within `limit`, the message is not JSON, or the connection ends.
    pub async fn next_message(&mut self, limit: Duration) -> Result<Value, ClientError> {
        self.message_until(Instant::now() + limit, limit).await
    }

    /// Reads until the connection ends, and ignores what comes before.
    ///
    /// # Errors
    /// Returns an error if the connection stays open for `limit`.
    pub async fn expect_close(&mut self, limit: Duration) -> Result<Closing, ClientError> {
        let deadline = Instant::now() + limit;
        loop {
            match self.message_until(deadline, limit).await {
                Ok(_) => {}
                Err(ClientError::Closed(closing)) => return Ok(closing),
                Err(other) => return Err(other),
            }
        }
    }

    /// Sends a message.
    ///
    /// # Errors
    /// Returns an error if the connection is broken.
    pub async fn send(&mut self, message: &Value) -> Result<(), ClientError> {
        self.send_text(&message.to_string()).await
    }

    /// Sends a text frame, JSON or not.
    ///
    /// # Errors
    /// Returns an error if the connection is broken.
    pub async fn send_text(&mut self, text: &str) -> Result<(), ClientError> {
        Ok(self.socket.send(Message::text(text)).await?)
    }

    /// Sends these bytes unchanged, whether or not they are a frame.
    ///
    /// # Errors
    /// Returns an error if the connection is broken.
    pub async fn send_raw(&mut self, bytes: &[u8]) -> Result<(), ClientError> {
        self.socket.flush().await?;
        Ok(self.socket.get_mut().write_all(bytes).await?)
    }

    /// Sends a close frame and waits for the server's close frame.
    ///
    /// # Errors
    /// Returns an error if the connection stays open.
    pub async fn close(mut self) -> Result<Closing, ClientError> {
        self.socket.close(None).await?;
        self.expect_close(ANSWER_LIMIT).await
    }

    /// Returns the connection below the frames, in which tests cause faults.
    #[must_use]
    pub fn stream(&mut self) -> &mut TcpStream {
        self.socket.get_mut()
    }

    async fn message_until(&mut self, deadline: Instant, limit: Duration) -> Result<Value, ClientError> {
        loop {
            let frame = timeout_at(deadline, self.socket.next()).await.map_err(|_| ClientError::Silence(limit))?;
            match frame.transpose() {
                Ok(Some(Message::Text(text))) => return Ok(self.noted(text.as_str())?),
                Ok(Some(Message::Close(frame))) => {
                    return Err(self.closed(frame.map(|frame| frame.code.into())));
                }
                Ok(Some(Message::Binary(bytes))) => {
                    return Err(ClientError::Unexpected(json!({"binary": bytes.len()})));
                }
                Ok(Some(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => {}
                Ok(None) => return Err(self.closed(None)),
                Err(error) if ended_without_close(&error) => return Err(self.closed(None)),
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn noted(&mut self, text: &str) -> serde_json::Result<Value> {
        let message: Value = serde_json::from_str(text)?;
        let kind = message["type"].as_str().unwrap_or_default();
        self.session_error = kind.ends_with("_session_error").then(|| message.clone());
        Ok(message)
    }

    fn closed(&mut self, code: Option<u16>) -> ClientError {
        let error = self.session_error.take();
        ClientError::Closed(Closing { error, code })
    }
}
