//! A client that sends nothing, or only a part of a message, is closed at a deadline.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

use crate::common::SOON;
use crate::raw::{ask, upgrade};
use crate::{metric, with};

/// Reads until the end of the stream. Returns all bytes and how long that took.
async fn heard(mut stream: TcpStream) -> (Vec<u8>, Duration) {
    let (started, mut said) = (Instant::now(), Vec::new());
    timeout(SOON + SOON, stream.read_to_end(&mut said)).await.expect("the end in time").unwrap();
    (said, started.elapsed())
}

#[tokio::test]
async fn a_head_that_does_not_arrive_is_waited_for_5_s() {
    let backend = with(&[]);
    let address = backend.gateway.address();
    let head = upgrade(address, &[]);
    let waits = ["", "G", "GET /ws HTTP/1.1\r\n", &head[..head.len() - 1]].map(|part| async move {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(part.as_bytes()).await.unwrap();
        heard(stream).await
    });
    for (said, after) in futures_util::future::join_all(waits).await {
        assert!(said.is_empty() && after < Duration::from_secs(6), "{after:?}: {said:?}");
    }
    assert_eq!(metric(&backend, "rollcall_upgrades_total", "outcome=\"head_timeout\""), 4.0);
}

/// Pings are due long before the deadline, and the client answers none of them.
#[tokio::test]
async fn upgraded_and_silent_is_auth_timed_out() {
    let early =
        [("ROLLCALL_PING_INTERVAL", "1s"), ("ROLLCALL_PONG_TIMEOUT", "500ms"), ("ROLLCALL_CONNECT_TIMEOUT", "3s")];
    let backend = with(&early);
    let address = backend.gateway.address();
    let waits = [&b""[..], b"\x81", b"\x81\xfe\xff", b"\x01\x81\0\0\0\0x"].map(|part| async move {
        let (mut stream, answer) = ask(address, &[]).await;
        assert_eq!(answer.status, 101);
        stream.write_all(part).await.unwrap();
        heard(stream).await
    });
    for (said, after) in futures_util::future::join_all(waits).await {
        assert_eq!(said.first(), Some(&0x81), "no ping: {said:?}");
        // A close frame with code 3502, followed by a text for people.
        let closed = |bytes: &[u8]| bytes[0] == 0x88 && bytes[2..] == [0x0d, 0xae];
        assert!(said.windows(4).any(closed), "3502: {said:?}");
        assert!(String::from_utf8_lossy(&said).contains(r#""type":"auth_timed_out""#));
        // The test counts from the upgrade's answer on, which is a little later than the gateway's count.
        assert!((2_900..6_000).contains(&after.as_millis()), "{after:?}");
    }
    assert_eq!(metric(&backend, "rollcall_disconnects_total", "reason=\"auth_timed_out\""), 4.0);
}
