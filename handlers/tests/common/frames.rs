//! Reads frames as they are on the wire, because a parsed message hides the order of keys, and pings are not messages.
//!
//! Invariant: a test uses this only after the client has read all that came: bytes that the client's codec holds are
//! not seen here.

use std::time::Duration;

use rollcall_loadtest::Client;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::time::timeout;

const TEXT: u8 = 1;
const PING: u8 = 9;

/// An empty pong. It is masked, as a client's frames must be.
pub(crate) const PONG: [u8; 6] = [0x8a, 0x80, 0, 0, 0, 0];

/// One whole frame that the server sent.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Frame {
    Text(String),
    Ping,
    Other(u8),
}

/// Reads the next frame.
pub(crate) async fn next_frame(client: &mut Client, limit: Duration) -> Frame {
    let frame = timeout(limit, read_frame(client.stream())).await;
    frame.unwrap_or_else(|_| panic!("no frame within {limit:?}")).unwrap()
}

/// Reads the next text frame, byte for byte.
pub(crate) async fn next_text(client: &mut Client, limit: Duration) -> String {
    match next_frame(client, limit).await {
        Frame::Text(text) => text,
        other => panic!("a text was awaited, not {other:?}"),
    }
}

async fn read_frame(stream: &mut TcpStream) -> std::io::Result<Frame> {
    let head = stream.read_u8().await?;
    assert_eq!(head & 0xf0, 0x80, "a whole frame without reserved bits");
    let length = match stream.read_u8().await? {
        126 => u64::from(stream.read_u16().await?),
        127 => stream.read_u64().await?,
        short => u64::from(short),
    };
    let mut payload = vec![0; usize::try_from(length).unwrap()];
    stream.read_exact(&mut payload).await?;
    Ok(match head & 0x0f {
        TEXT => Frame::Text(String::from_utf8(payload).unwrap()),
        PING => Frame::Ping,
        other => Frame::Other(other),
    })
}
