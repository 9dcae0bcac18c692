//! A client of Socket.IO over websocket, written from the protocol's description.

use std::collections::VecDeque;
use std::net::SocketAddr;

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::{WebSocketStream, client_async};

use super::{Backend, SOON};

/// A packet or a close that a server has sent.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Packet {
    /// An event's name and arguments.
    Event(String, Vec<Value>),
    /// The answer to CONNECT.
    Connected(Value),
    /// CONNECT_ERROR.
    Refused(Value),
    /// DISCONNECT.
    Disconnected,
    /// The arguments of an acknowledgement.
    Ack(u64, Vec<Value>),
    /// The transport is closed, with this code.
    Closed(Option<u16>),
}

/// One connection, in one namespace.
#[derive(Debug)]
pub(crate) struct SocketIo {
    socket: WebSocketStream<TcpStream>,
    namespace: &'static str,
    /// Events that came while the client waited for an answer.
    events: VecDeque<Packet>,
    last_id: u64,
    /// The data of the handshake's answer.
    pub(crate) open: Value,
    /// What a client's library keeps to go on after a break: the pid, and the offset at the end of the last event.
    pub(crate) recovery: (Option<String>, Option<String>),
}

impl SocketIo {
    /// Opens a transport, with these parameters added to its query.
    pub(crate) async fn open(backend: &Backend, query: &str) -> Self {
        Self::open_with(backend, query, None).await
    }

    /// Opens a transport whose handshake has this `Authorization`.
    pub(crate) async fn open_with(backend: &Backend, query: &str, authorization: Option<&str>) -> Self {
        Self::open_at(backend.gateway.address(), query, authorization).await
    }

    /// Opens a transport to the node at this address.
    pub(crate) async fn open_at(address: SocketAddr, query: &str, authorization: Option<&str>) -> Self {
        let url = format!("ws://{address}/socket.io/?EIO=4&transport=websocket{query}");
        let mut request = url.into_client_request().unwrap();
        if let Some(value) = authorization {
            request.headers_mut().insert("authorization", value.parse().unwrap());
        }
        let stream = TcpStream::connect(address).await.unwrap();
        let (socket, _) = client_async(request, stream).await.unwrap();
        let recovery = (None, None);
        let mut client =
            Self { socket, namespace: "", events: VecDeque::new(), last_id: 0, open: Value::Null, recovery };
        let open = client.text().await.unwrap();
        client.open = serde_json::from_str(open.strip_prefix('0').unwrap()).unwrap();
        client
    }

    /// Connects a client to the main namespace.
    pub(crate) async fn connect(backend: &Backend, auth: &Value) -> Self {
        let mut client = Self::open(backend, "").await;
        client.connects(auth).await;
        client
    }

    /// Connects to a node in the way in which the library of a client that was connected before does: with the data
    /// that the library kept. Returns the new client, and whether the client goes on with its session.
    pub(crate) async fn comes_back(self, address: SocketAddr, query: &str, auth: &Value) -> (Self, bool) {
        let (pid, offset) = self.recovery;
        let mut client = Self::open_at(address, query, None).await;
        client.recovery.1.clone_from(&offset);
        let mut auth = auth.clone();
        if let Some(pid) = &pid {
            auth["pid"] = pid.as_str().into();
            if let Some(offset) = offset {
                auth["offset"] = offset.into();
            }
        }
        client.connects(&auth).await;
        let recovered = pid.is_some() && client.recovery.0 == pid;
        (client, recovered)
    }

    /// Sends CONNECT, and expects its answer; returns the sid.
    pub(crate) async fn connects(&mut self, auth: &Value) -> String {
        self.send(&format!("40{auth}")).await;
        loop {
            match self.packet().await {
                Packet::Connected(data) => {
                    self.recovery.0 = data["pid"].as_str().map(str::to_owned);
                    return data["sid"].as_str().unwrap().to_owned();
                }
                // Packets of the namespace that the client left may still come.
                Packet::Event(..) | Packet::Ack(..) => {}
                other => panic!("not let in: {other:?}"),
            }
        }
    }

    /// Uses another namespace than the main one.
    pub(crate) fn in_namespace(self, namespace: &'static str) -> Self {
        Self { namespace, ..self }
    }

    pub(crate) async fn send(&mut self, text: &str) {
        self.socket.send(Message::text(text)).await.unwrap();
    }

    /// Sends a text, even if the server may have closed the transport already.
    pub(crate) async fn send_late(&mut self, text: &str) {
        let _ = self.socket.send(Message::text(text)).await;
    }

    pub(crate) async fn send_binary(&mut self, data: &[u8]) {
        self.socket.send(Message::binary(data.to_vec())).await.unwrap();
    }

    /// Closes the WebSocket without a DISCONNECT in its namespace.
    pub(crate) async fn close_frame(&mut self) {
        self.socket.close(None).await.unwrap();
    }

    /// Emits an event and returns what its callback gets. Events that come before the answer are kept.
    pub(crate) async fn emit(&mut self, event: &str, arguments: &[Value]) -> Value {
        self.last_id += 1;
        let id = self.last_id;
        let data = Value::from([&[json!(event)], arguments].concat());
        let separator = if self.namespace.is_empty() { "" } else { "," };
        self.send(&format!("42{}{separator}{id}{data}", self.namespace)).await;
        loop {
            match self.packet().await {
                Packet::Ack(of, arguments) if of == id => {
                    assert_eq!(arguments.len(), 1, "{arguments:?}");
                    return arguments[0].clone();
                }
                event @ Packet::Event(..) => self.events.push_back(event),
                other => panic!("an ack was awaited, not {other:?}"),
            }
        }
    }

    /// Joins a lesson, and expects success with the seed's object and nothing else.
    pub(crate) async fn joins(&mut self, lesson: &str) {
        let ack = self.emit("join_lesson", &[json!({"lesson_id": lesson})]).await;
        assert_eq!(ack, json!({"status": "SUCCESS", "data": {}}));
    }

    /// Returns the first argument of the next event, which must have this name.
    pub(crate) async fn event(&mut self, name: &str) -> Value {
        match self.next().await {
            Packet::Event(event, arguments) if event == name => arguments.into_iter().next().unwrap_or_default(),
            other => panic!("{name} was awaited, not {other:?}"),
        }
    }

    /// Returns the next packet; kept packets come first.
    pub(crate) async fn next(&mut self) -> Packet {
        match self.events.pop_front() {
            Some(event) => event,
            None => self.packet().await,
        }
    }

    async fn packet(&mut self) -> Packet {
        let text = match self.text().await {
            Ok(text) => text,
            Err(code) => return Packet::Closed(code),
        };
        let kind = text.get(..2).unwrap_or_else(|| panic!("{text}"));
        let rest = &text[2..];
        let rest = rest.strip_prefix(self.namespace).unwrap_or_else(|| panic!("another namespace: {text}"));
        let rest = rest.strip_prefix(',').unwrap_or(rest);
        let json = |text: &str| serde_json::from_str::<Value>(text).unwrap_or_else(|error| panic!("{text}: {error}"));
        match kind {
            "40" => Packet::Connected(json(rest)),
            "41" => Packet::Disconnected,
            "42" => {
                let mut arguments = json(rest).as_array().unwrap().clone();
                let name = arguments.remove(0).as_str().unwrap().to_owned();
                if let (Some(_), Some(Value::String(offset))) = (&self.recovery.0, arguments.last()) {
                    self.recovery.1 = Some(offset.clone());
                }
                Packet::Event(name, arguments)
            }
            "43" => {
                let (id, data) = rest.split_at(rest.find('[').unwrap());
                Packet::Ack(id.parse().unwrap(), json(data).as_array().unwrap().clone())
            }
            "44" => Packet::Refused(json(rest)),
            _ => panic!("{text}"),
        }
    }

    /// Returns the next text that is not a ping. The error is the code of the close frame.
    pub(crate) async fn text(&mut self) -> Result<String, Option<u16>> {
        loop {
            match timeout(SOON, self.socket.next()).await.expect("something comes in time") {
                Some(Ok(Message::Text(text))) if text.as_str() == "2" => self.send("3").await,
                Some(Ok(Message::Text(text))) => return Ok(text.as_str().to_owned()),
                Some(Ok(Message::Close(frame))) => return Err(frame.map(|frame| frame.code.into())),
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return Err(None),
            }
        }
    }
}
