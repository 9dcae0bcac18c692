//! The test client against a server that is scripted frame by frame.

#![allow(clippy::unwrap_used)]

use std::net::SocketAddr;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use rollcall_loadtest::client::{Client, ClientError, Closing};
use serde_json::json;
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::{WebSocketStream, accept_async};

const SOON: Duration = Duration::from_secs(5);

/// Starts a server for one connection. `script` decides what the server reads and sends.
async fn serve<F>(script: impl FnOnce(WebSocketStream<TcpStream>) -> F + Send + 'static) -> SocketAddr
where
    F: Future<Output = ()> + Send,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        script(accept_async(stream).await.unwrap()).await;
    });
    address
}

fn entered(session: i64) -> serde_json::Value {
    json!({
        "id": {"entity_type": "agent", "operation": "entered", "sequence_id": session},
        "payload": {"version": "v1", "entity_type": "agent", "label": "entered", "agent_id": "web.bob.example.org"},
    })
}

async fn say(socket: &mut WebSocketStream<TcpStream>, message: serde_json::Value) {
    socket.send(Message::text(message.to_string())).await.unwrap();
}

#[tokio::test]
async fn events_before_the_ack_are_kept_in_order() {
    let address = serve(|mut socket| async move {
        socket.next().await.unwrap().unwrap();
        say(&mut socket, json!({"type": "connect_success", "payload": {"session_id": 7}})).await;
        socket.next().await.unwrap().unwrap();
        say(&mut socket, entered(8)).await;
        say(&mut socket, json!({"offset": 3, "event": entered(9)})).await;
        say(&mut socket, json!({"type": "ack", "ref": 1, "status": "SUCCESS", "data": {}})).await;
        socket.next().await;
    })
    .await;
    let mut client = Client::connect(address).await.unwrap();
    let success = client.connect_request("token", "classroom", "web").await.unwrap();
    assert_eq!(success, json!({"session_id": 7}));
    let ack = client.join_lesson("algebra-1").await.unwrap();
    assert_eq!(ack["status"], "SUCCESS");
    let first = client.next_event(SOON).await.unwrap();
    assert_eq!((first.offset, first.sequence_id()), (None, Some(8)));
    assert_eq!((first.label(), first.agent_id()), (Some("entered"), Some("web.bob.example.org")));
    let second = client.next_event(SOON).await.unwrap();
    assert_eq!((second.offset, second.sequence_id()), (Some(3), Some(9)));
    client.expect_silence(Duration::from_millis(50)).await.unwrap();
}

#[tokio::test]
async fn a_session_error_and_the_close_code_are_told_together() {
    let error = json!({"type": "recoverable_session_error", "payload": {"type": "terminated"}});
    let sent = error.clone();
    let address = serve(|mut socket| async move {
        say(&mut socket, entered(1)).await;
        say(&mut socket, sent).await;
        let frame = CloseFrame { code: 3001.into(), reason: "".into() };
        socket.close(Some(frame)).await.unwrap();
        socket.next().await;
    })
    .await;
    let mut client = Client::connect(address).await.unwrap();
    let closing = client.expect_close(SOON).await.unwrap();
    assert_eq!(closing, Closing { error: Some(error), code: Some(3001) });
}

#[tokio::test]
async fn a_connection_that_ends_without_a_close_frame_has_no_code() {
    let address = serve(|socket| async move { drop(socket) }).await;
    let mut client = Client::connect(address).await.unwrap();
    let closing = client.expect_close(SOON).await.unwrap();
    assert_eq!(closing, Closing { error: None, code: None });
}

#[tokio::test]
async fn pings_are_answered_while_waiting() {
    let address = serve(|mut socket| async move {
        socket.send(Message::Ping("are you there".into())).await.unwrap();
        let answer = socket.next().await.unwrap().unwrap();
        say(&mut socket, json!({"pong": answer.is_pong()})).await;
        socket.next().await;
    })
    .await;
    let mut client = Client::connect(address).await.unwrap();
    assert_eq!(client.next_message(SOON).await.unwrap(), json!({"pong": true}));
}

#[tokio::test]
async fn raw_bytes_go_out_as_they_are() {
    let address = serve(|mut socket| async move {
        let mut bytes = [0; 3];
        socket.get_mut().read_exact(&mut bytes).await.unwrap();
        say(&mut socket, json!(bytes)).await;
        socket.next().await;
    })
    .await;
    let mut client = Client::connect(address).await.unwrap();
    client.send_raw(&[0x83, 0xff, 0x00]).await.unwrap();
    assert_eq!(client.next_message(SOON).await.unwrap(), json!([0x83, 0xff, 0x00]));
}

#[tokio::test]
async fn a_refused_upgrade_tells_its_status() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let answer = b"HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n";
        tokio::io::AsyncWriteExt::write_all(&mut stream, answer).await.unwrap();
    });
    let headers = [("Origin", "https://elsewhere.example")];
    let refused = Client::connect_with(address, "/ws", &headers).await;
    assert!(matches!(refused, Err(ClientError::Refused(403))));
}
