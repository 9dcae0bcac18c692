//! Requests as a service that a test runs itself reads them.

use std::collections::BTreeMap;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::net::TcpStream;

/// An HTTP/1.1 request. Its head must say how long its body is.
pub(crate) struct HttpRequest {
    /// The lines of the head, unchanged.
    pub(crate) head: Vec<String>,
    /// The headers by name, in lower case.
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: Vec<u8>,
}

impl HttpRequest {
    /// Reads the next request of a connection. Returns `None` when the connection has ended.
    pub(crate) async fn read(stream: &mut BufReader<TcpStream>) -> Option<Self> {
        let (mut head, mut headers) = (Vec::new(), BTreeMap::new());
        loop {
            let mut line = String::new();
            if stream.read_line(&mut line).await.ok()? == 0 {
                return None;
            }
            if line == "\r\n" {
                break;
            }
            if let Some((name, value)) = line.split_once(':') {
                headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
            }
            head.push(line.trim_end().to_owned());
        }
        let mut body = vec![0; headers.get("content-length")?.parse().ok()?];
        stream.read_exact(&mut body).await.ok()?;
        Some(Self { head, headers, body })
    }
}
