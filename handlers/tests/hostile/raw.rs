//! Requests as bytes, and the heads of their answers.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

const LIMIT: Duration = Duration::from_secs(10);

/// The head of an answer.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// The headers' values by names in lower case.
    pub(crate) headers: HashMap<String, String>,
}

impl Answer {
    /// Expects that the answer asks the client to come again later.
    pub(crate) fn is_later(&self, status: u16) {
        assert_eq!(self.status, status, "{self:?}");
        let after: u64 = self.headers["retry-after"].parse().unwrap();
        assert!((1..=60).contains(&after), "{self:?}");
    }
}

/// Returns a request for an upgrade, as a browser makes it, with further headers.
pub(crate) fn upgrade(address: SocketAddr, headers: &[(&str, &str)]) -> String {
    let further: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    format!(
        "GET /ws HTTP/1.1\r\nHost: {address}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n{further}\r\n"
    )
}

/// Asks for an upgrade. Returns the connection and the answer.
pub(crate) async fn ask(address: SocketAddr, headers: &[(&str, &str)]) -> (TcpStream, Answer) {
    ask_from(None, address, headers).await
}

/// Asks for an upgrade from this address of the loopback network.
pub(crate) async fn ask_from(
    source: Option<IpAddr>,
    address: SocketAddr,
    headers: &[(&str, &str)],
) -> (TcpStream, Answer) {
    let socket = TcpSocket::new_v4().unwrap();
    if let Some(source) = source {
        socket.bind(SocketAddr::new(source, 0)).unwrap();
    }
    let mut stream = socket.connect(address).await.unwrap();
    stream.write_all(upgrade(address, headers).as_bytes()).await.unwrap();
    let answer = timeout(LIMIT, answer(&mut stream)).await.expect("an answer in time");
    (stream, answer)
}

/// Reads the head of the next answer.
pub(crate) async fn answer(stream: &mut TcpStream) -> Answer {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    let head = String::from_utf8(head).unwrap();
    let (first, rest) = head.split_once("\r\n").unwrap();
    let headers = rest.lines().filter_map(|line| line.split_once(": "));
    Answer {
        status: first.split(' ').nth(1).unwrap().parse().unwrap(),
        headers: headers.map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned())).collect(),
    }
}
