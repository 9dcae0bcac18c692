//! No secret appears in the log, the metrics, errors or the process's title. Each secret of this test has a text that
//! the test searches for.

use std::time::Duration;

use rollcall_loadtest::{Client, Gateway, GatewayOptions, token};
use serde_json::json;

const CANARY: &str = "c4nary-5ecret";
const ROOM: &str = "2b5c0e0c-8f7c-4b0a-9d54-0a8cf9d1c001";

#[tokio::test]
async fn a_running_gateway_shows_no_secret() {
    let secret = format!("{CANARY}-hs256-and-long-enough-for-it");
    let options = GatewayOptions::new(env!("CARGO_BIN_EXE_rollcall"))
        .env("ROLLCALL_HS256_SECRET", &secret)
        .env("ROLLCALL_ADMIN_TOKEN", format!("{CANARY}-admin"))
        .env("ROLLCALL_MIXPANEL_TOKEN", format!("{CANARY}-mixpanel"))
        .env("ROLLCALL_MIXPANEL_URL", "http://127.0.0.1:1/track")
        .env("ROLLCALL_LOG", "trace");
    let gateway = Gateway::start(options).unwrap();
    let mut good = Client::connect(gateway.address()).await.unwrap();
    let bearer = token::hs256(&secret, &token::claims("alice", "participant"));
    good.connect_request(&bearer, ROOM, "web").await.unwrap();
    let mut bad = Client::connect(gateway.address()).await.unwrap();
    let forged = token::hs256("another", &token::claims("mallory", "teacher"));
    let payload = json!({"token": forged, "classroom_id": ROOM, "agent_label": "web"});
    assert!(bad.connect_request_with(payload).await.is_err());
    let closing = bad.expect_close(Duration::from_secs(10)).await.unwrap();

    let title = std::fs::read(format!("/proc/{}/cmdline", gateway.pid())).unwrap();
    let answers = ["/metrics", "/readyz", "/api/v1/publish", "/nowhere"].map(|path| gateway.get(path).unwrap().1);
    let shown = [gateway.output(), String::from_utf8_lossy(&title).into_owned(), format!("{closing:?}")];
    for shown in shown.iter().chain(&answers) {
        assert!(!shown.contains(CANARY), "{shown}");
        let signature = |token: &str| token.rsplit_once('.').unwrap().1.to_owned();
        assert!(!shown.contains(&signature(&bearer)) && !shown.contains(&signature(&forged)), "{shown}");
    }
}

#[test]
fn a_fault_in_a_secret_address_is_reported_without_it() {
    for command in ["serve", "check", "migrate"] {
        let output = GatewayOptions::new(env!("CARGO_BIN_EXE_rollcall"))
            .env("DATABASE_URL", format!("postgres://me:{CANARY}@127.0.0.1:1/x"))
            .env("REDIS_URL", format!("redis://:{CANARY}@127.0.0.1:1/"))
            .env("NATS_URL", format!("nats://me:{CANARY}@127.0.0.1:1"))
            .env("ROLLCALL_LOG", "debug")
            .arg(command)
            .command()
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        assert!(!output.status.success() && !said.is_empty(), "{said}");
        assert!(!said.contains(CANARY), "{command}: {said}");
    }
}
