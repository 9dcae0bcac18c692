//! Rollcall's own requests over HTTPS: each trusts a private authority, and goes through the proxy.

use std::net::SocketAddr;

use crate::common::{Backend, FunctionsFile, SOON, until};
use rollcall_loadtest::servers::Authority;
use rollcall_loadtest::{ConnectProxy, TlsFront};
use serde_json::json;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

/// The hosts that Rollcall asks. No resolver knows their names, so only the proxy reaches them.
const HOSTS: [&str; 5] = ["authz.test", "function.test", "keys.test", "mixpanel.test", "webhook.test"];
/// The key set of the example in RFC 8037.
const KEYS: &str =
    r#"{"keys":[{"kty":"OKP","crv":"Ed25519","kid":"a","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#;

/// Starts one server that answers for all of these hosts.
async fn services() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            // An error ends only the task of this connection: the gateway closes a connection after its last request.
            tokio::spawn(async move { serve(stream).await.ok() });
        }
    });
    address
}

async fn serve(stream: TcpStream) -> std::io::Result<()> {
    let mut stream = BufReader::new(stream);
    loop {
        let (mut host, mut length) = (String::new(), 0);
        loop {
            let mut line = String::new();
            if stream.read_line(&mut line).await? == 0 {
                return Ok(());
            }
            match line.trim_end().to_ascii_lowercase().split_once(": ") {
                Some(("host", value)) => host = value.to_owned(),
                Some(("content-length", value)) => length = value.parse().unwrap(),
                None if line == "\r\n" => break,
                _ => {}
            }
        }
        stream.read_exact(&mut vec![0; length]).await?;
        let body = match host.as_str() {
            "keys.test" => KEYS,
            "function.test" => r#"{"data":{}}"#,
            "mixpanel.test" => "1",
            // The body is empty: the authorization service says yes by its status, and the webhook's body is ignored.
            _ => "",
        };
        let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len());
        stream.write_all(answer.as_bytes()).await?;
    }
}

#[tokio::test]
async fn everything_that_is_asked_trusts_the_authority_and_goes_through_the_proxy() {
    let authority = Authority::new().unwrap();
    let front = TlsFront::start(&authority.issue(&HOSTS).unwrap(), services().await).await.unwrap();
    let proxy = ConnectProxy::start(front.address(), Some("Basic bWU6cEBzcw==")).await.unwrap();
    let functions = FunctionsFile::new(&[("vote", "https://function.test/vote", "")]);
    let backend = Backend::start(None, |options| {
        functions
            .on(options)
            .env("ROLLCALL_CA_FILE", authority.certificate().display())
            .env("HTTPS_PROXY", format!("http://me:p%40ss@{}", proxy.address()))
            .env("ROLLCALL_JWKS", "https://issuer.example=https://keys.test/jwks")
            .env("ROLLCALL_AUTHZ_URL", "https://authz.test/")
            .env("ROLLCALL_MIXPANEL_URL", "https://mixpanel.test/track")
            .env("ROLLCALL_MIXPANEL_TOKEN", "a-token")
            .env("ROLLCALL_WEBHOOK_URL", "https://webhook.test/")
            .env("ROLLCALL_WEBHOOK_SECRET", rollcall_loadtest::webhook::SECRET)
    });
    let room = backend.classroom();
    let mut alice = backend.participant(room, "alice").await;
    // The second join is a reconnect, so Mixpanel is called.
    for _ in 0..2 {
        alice.joins(&room.algebra).await;
    }
    let ack = alice.client.request("vote", json!({})).await.unwrap();
    assert_eq!(ack["status"], "SUCCESS", "{ack}");
    let asked = async || {
        let mut hosts: Vec<_> = proxy.requests().iter().map(|line| line.replace("CONNECT ", "")).collect();
        hosts.sort();
        hosts.dedup();
        hosts
    };
    let all = HOSTS.map(|host| format!("{host}:443 HTTP/1.1"));
    until("each service is asked", SOON, asked, |hosts| *hosts == all).await;
    let said = backend.gateway.output();
    assert!(!said.contains("p%40ss") && !said.contains("p@ss"), "{said}");
}
