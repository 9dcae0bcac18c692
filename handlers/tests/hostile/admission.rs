//! Which clients may connect: limits, pages, proxies, and the authorization service.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

use rollcall_loadtest::client::ClientError;
use rollcall_loadtest::{Client, Gateway, GatewayOptions, token};

const ROOM: &str = "2b5c0e0c-8f7c-4b0a-9d54-0a8cf9d1c001";
const SOON: Duration = Duration::from_secs(10);

fn gateway(settings: &[(&str, &str)]) -> Gateway {
    let options = GatewayOptions::new(env!("CARGO_BIN_EXE_rollcall"));
    let options = settings.iter().fold(options, |options, (name, value)| options.env(name, value));
    Gateway::start(options).unwrap()
}

/// Connects a WebSocket through a proxy.
async fn through(gateway: &Gateway, client: &str) -> Result<Client, ClientError> {
    Client::connect_with(gateway.address(), "/ws", &[("x-forwarded-for", client)]).await
}

async fn from_page(gateway: &Gateway, origin: &str) -> Result<Client, ClientError> {
    Client::connect_with(gateway.address(), "/ws", &[("origin", origin)]).await
}

fn refused(outcome: Result<Client, ClientError>) -> u16 {
    match outcome {
        Err(ClientError::Refused(status)) => status,
        other => panic!("not refused but {other:?}"),
    }
}

#[tokio::test]
async fn a_client_has_only_so_many_connections_and_gets_them_back() {
    let gateway = gateway(&[("ROLLCALL_TRUSTED_PROXIES", "127.0.0.0/8"), ("ROLLCALL_MAX_CONNECTIONS_PER_IP", "2")]);
    let first = through(&gateway, "1.2.3.4").await.unwrap();
    let _second = through(&gateway, "6.6.6.6, 1.2.3.4").await.unwrap();
    assert_eq!(refused(through(&gateway, "1.2.3.4").await), 429);
    let _other = through(&gateway, "2001:db8::1").await.unwrap();
    drop(first);
    gateway.wait_for_metric("rollcall_connections", &[], SOON, |connections| connections < 3.0).unwrap();
    assert!(through(&gateway, "1.2.3.4").await.is_ok());
    assert!(gateway.metric("rollcall_dropped_total", &["client_full"]).unwrap() >= 1.0);
}

#[tokio::test]
async fn without_trusted_proxies_the_header_is_not_read() {
    let gateway = gateway(&[("ROLLCALL_MAX_CONNECTIONS_PER_IP", "1")]);
    let _first = through(&gateway, "1.2.3.4").await.unwrap();
    let _second = through(&gateway, "1.2.3.4").await.unwrap();
}

#[tokio::test]
async fn a_full_node_keeps_whom_it_has() {
    let gateway = gateway(&[("ROLLCALL_MAX_CONNECTIONS", "1")]);
    let mut first = Client::connect(gateway.address()).await.unwrap();
    assert_eq!(refused(Client::connect(gateway.address()).await), 503);
    assert!(first.connect_request(&token::participant("alice"), ROOM, "web").await.is_ok());
}

#[tokio::test]
async fn a_node_short_of_memory_takes_no_new_connection() {
    let gateway = gateway(&[("ROLLCALL_MAX_MEMORY", "1MiB")]);
    assert_eq!(refused(Client::connect(gateway.address()).await), 503);
    assert_eq!(gateway.get("/readyz").unwrap().0, 200);
}

#[tokio::test]
async fn only_pages_that_are_named_may_connect() {
    let gateway = gateway(&[("ROLLCALL_ORIGINS", "https://school.example")]);
    assert!(from_page(&gateway, "https://school.example").await.is_ok());
    assert!(from_page(&gateway, &format!("http://{}", gateway.address())).await.is_ok(), "the same host's");
    for origin in ["https://evil.example", "null", "https://school.example.evil", "http://school.example"] {
        assert_eq!(refused(from_page(&gateway, origin).await), 403, "{origin}");
    }
}

/// Starts an authorization service that answers every question with this status. Returns its address and the questions.
fn authz(status: u16) -> (SocketAddr, Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (sender, questions) = channel();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut question = String::new();
            let mut bytes = [0; 4096];
            while !question.contains("\"action\"") {
                let length = stream.read(&mut bytes).unwrap();
                question.push_str(std::str::from_utf8(&bytes[..length]).unwrap());
            }
            write!(stream, "HTTP/1.1 {status} X\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").unwrap();
            if sender.send(question).is_err() {
                return;
            }
        }
    });
    (address, questions)
}

#[tokio::test]
async fn the_hook_lets_in_or_keeps_out() {
    for (status, admitted) in [(200, true), (403, false)] {
        let (address, questions) = authz(status);
        let gateway = gateway(&[("ROLLCALL_AUTHZ_URL", &format!("http://{address}/authz"))]);
        let mut alice = Client::connect(gateway.address()).await.unwrap();
        let outcome = alice.connect_request(&token::participant("alice"), ROOM, "web").await;
        assert_eq!(outcome.is_ok(), admitted, "{outcome:?}");
        let question = questions.recv_timeout(SOON).unwrap();
        assert!(question.starts_with("POST /authz HTTP/1.1\r\n"), "{question}");
        let body = question.split_once("\r\n\r\n").unwrap().1;
        let expected = format!(
            r#"{{"subject":{{"namespace":"example.org","value":"alice"}},"object":{{"namespace":"example.org","value":["classrooms","{ROOM}"]}},"action":"connect"}}"#
        );
        assert_eq!(body, expected);
        if !admitted {
            let closing = alice.expect_close(SOON).await.unwrap();
            assert_eq!(closing.code, Some(3507));
            assert_eq!(gateway.get(&format!("/api/v1/classrooms/{ROOM}/agents")).unwrap().1, "[]");
        }
    }
}

#[tokio::test]
async fn without_an_answer_the_hook_asks_to_come_again() {
    let gateway = gateway(&[("ROLLCALL_AUTHZ_URL", "http://127.0.0.1:1/")]);
    let mut alice = Client::connect(gateway.address()).await.unwrap();
    assert!(alice.connect_request(&token::participant("alice"), ROOM, "web").await.is_err());
    assert_eq!(alice.expect_close(SOON).await.unwrap().code, Some(3004));
}
