//! A client of Socket.IO by long-polling. Each of its requests has a connection of its own.

use std::net::SocketAddr;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::SOON;

/// A session of Engine.IO.
#[derive(Debug)]
pub(crate) struct Polling {
    address: SocketAddr,
    /// The session's id. It begins with the label of its node.
    pub(crate) sid: String,
    /// Packets that have come and are not yet read.
    packets: Vec<String>,
}

impl Polling {
    /// Begins a session, and sends CONNECT.
    pub(crate) async fn connect(address: SocketAddr, auth: &Value) -> Self {
        let (status, body) = request(address, "GET", "", "").await;
        assert_eq!(status, 200, "{body}");
        let open: Value = serde_json::from_str(body.strip_prefix('0').unwrap()).unwrap();
        let mut client = Self { address, sid: open["sid"].as_str().unwrap().to_owned(), packets: Vec::new() };
        client.post(&format!("40{auth}")).await;
        assert!(client.next().await.starts_with("40{"), "let in");
        client
    }

    /// Returns the label of the node that the session's id names.
    pub(crate) fn node(&self) -> &str {
        self.sid.split_once('.').unwrap().0
    }

    /// Sends packets.
    pub(crate) async fn post(&self, body: &str) {
        let answer = request(self.address, "POST", &self.sid, body).await;
        assert_eq!(answer, (200, "ok".to_owned()));
    }

    /// Returns the next packet that is not a ping.
    pub(crate) async fn next(&mut self) -> String {
        while self.packets.is_empty() {
            let (status, body) = request(self.address, "GET", &self.sid, "").await;
            assert_eq!(status, 200, "{body}");
            self.packets = body.split('\x1e').filter(|packet| *packet != "2").map(str::to_owned).collect();
        }
        self.packets.remove(0)
    }

    /// Joins a lesson, and expects success.
    pub(crate) async fn joins(&mut self, lesson: &str) {
        self.post(&format!("421{}", json!(["join_lesson", {"lesson_id": lesson}]))).await;
        loop {
            let packet = self.next().await;
            if let Some(ack) = packet.strip_prefix("431") {
                return assert_eq!(ack, r#"[{"status":"SUCCESS","data":{}}]"#);
            }
        }
    }

    /// Reads packets until an event with this name and first argument comes.
    pub(crate) async fn event(&mut self, name: &str, argument: &Value) {
        let wanted = json!([name, argument]);
        loop {
            let packet = self.next().await;
            if packet.strip_prefix("42").and_then(|data| serde_json::from_str::<Value>(data).ok())
                == Some(wanted.clone())
            {
                return;
            }
        }
    }
}

/// Sends a request with or without a session's id. Returns the status and the body.
pub(crate) async fn request(address: SocketAddr, method: &str, sid: &str, body: &str) -> (u16, String) {
    let sid = if sid.is_empty() { String::new() } else { format!("&sid={sid}") };
    let target = format!("/socket.io/?EIO=4&transport=polling{sid}");
    let length = body.len();
    let request = format!(
        "{method} {target} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}"
    );
    let exchange = async {
        let mut stream = TcpStream::connect(address).await?;
        stream.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        Ok::<_, std::io::Error>(answer)
    };
    let answer = timeout(SOON, exchange).await.expect("an answer in time").unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{answer}"));
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, body.to_owned())
}
