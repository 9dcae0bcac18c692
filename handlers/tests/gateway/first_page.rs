//! A developer's first page, written with nothing but README: it is served from another port of the same machine, uses
//! a token that the gateway printed, and makes the usual mistakes.

use futures_util::{SinkExt, StreamExt};
use rollcall_loadtest::client::ClientError;
use rollcall_loadtest::{Client, Gateway, GatewayOptions, token};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::{Message, client::IntoClientRequest};
use tokio_tungstenite::{WebSocketStream, client_async};

use crate::common::{SOON, until};

/// The classroom of the demo that a first start makes.
const CLASSROOM: &str = "de300000-0000-4000-8000-000000000001";
const LESSON: &str = "demo";
/// The origin of a common development server.
const PAGE: &str = "http://localhost:5173";

/// Returns a gateway as `cargo run` starts it: without a key, on loopback.
fn developers() -> Gateway {
    let options = GatewayOptions::new(env!("CARGO_BIN_EXE_rollcall"));
    Gateway::start(options.without("ROLLCALL_HS256_SECRET")).unwrap()
}

/// Returns the participant's token. The gateway prints it after the teacher's.
async fn printed_token(gateway: &Gateway) -> String {
    let tokens = async || {
        let output = gateway.output();
        let tokens = output.lines().map(str::trim).filter(|line| line.starts_with("eyJ"));
        tokens.map(str::to_owned).collect::<Vec<_>>()
    };
    // The lines to paste come after the tokens, so the output is complete once they are there.
    until("two tokens", SOON, tokens, |tokens| tokens.len() == 2 && gateway.output().contains("paste: "))
        .await
        .remove(1)
}

async fn socket(gateway: &Gateway) -> WebSocketStream<TcpStream> {
    let address = gateway.address();
    let request = format!("ws://{address}/ws").into_client_request().unwrap();
    client_async(request, TcpStream::connect(address).await.unwrap()).await.unwrap().0
}

/// Returns the answer to a first message, and the code and the reason of the close frame after it.
async fn refused(gateway: &Gateway, first: &Value) -> (Value, u16, String) {
    let mut socket = socket(gateway).await;
    socket.send(Message::text(first.to_string())).await.unwrap();
    let error = socket.next().await.unwrap().unwrap();
    let Message::Close(Some(close)) = socket.next().await.unwrap().unwrap() else { panic!("no close frame") };
    (serde_json::from_str(error.to_text().unwrap()).unwrap(), close.code.into(), close.reason.to_string())
}

fn connect(token: &str, classroom: &str, label: &str) -> Value {
    let payload = json!({"token": token, "classroom_id": classroom, "agent_label": label});
    json!({"type": "connect_request", "payload": payload})
}

#[tokio::test]
async fn a_page_on_another_port_enters_joins_and_learns_its_seat() {
    let gateway = developers();
    let mut page = Client::connect_with(gateway.address(), "/ws", &[("origin", PAGE)]).await.unwrap();
    let success = page.connect_request(&printed_token(&gateway).await, CLASSROOM, "web").await.unwrap();
    assert!(success["expires_at"].as_u64().is_some_and(|end| end > 1_700_000_000), "{success}");
    let join = json!({"type": "join_lesson", "ref": "first join", "payload": {"lesson_id": LESSON}});
    page.send_text(&join.to_string()).await.unwrap();
    let ack = page.next_message(SOON).await.unwrap();
    assert_eq!((&ack["ref"], &ack["status"], &ack["data"]), (&json!("first join"), &json!("SUCCESS"), &json!({})));
    let lesson = &ack["lesson"];
    assert_eq!(
        (&lesson["lesson_id"], &lesson["seat"], &lesson["seats"]),
        (&json!(LESSON), &json!(1), &json!(12)),
        "{ack}"
    );
}

#[tokio::test]
async fn mistakes_in_requests_say_what_to_mend() {
    let gateway = developers();
    let mut page = Client::connect_with(gateway.address(), "/ws", &[("origin", PAGE)]).await.unwrap();
    page.connect_request(&printed_token(&gateway).await, CLASSROOM, "web").await.unwrap();
    let guess = page.request("joinLesson", json!({"lesson_id": LESSON})).await.unwrap();
    assert_eq!(guess["message"], "unknown event");
    let names = guess["detail"].as_str().unwrap();
    assert!(names.starts_with("events: ") && names.contains("join_lesson") && names.contains("refresh"), "{names}");
    let faulty = page.request("join_lesson", json!({"lesson_id": "no spaces"})).await.unwrap();
    assert_eq!(
        (&faulty["message"], &faulty["detail"]),
        (&json!("invalid payload"), &json!("lesson_id: [A-Za-z0-9_-]{1,64}"))
    );
    let again = page.request("connect_request", json!({})).await.unwrap();
    assert_eq!(again["message"], "already connected");
    page.send_text("join_lesson please").await.unwrap();
    let strange = page.next_message(SOON).await.unwrap();
    assert_eq!((&strange["ref"], &strange["message"]), (&Value::Null, &json!("invalid payload")));
}

#[tokio::test]
async fn mistakes_in_the_first_message_say_what_to_mend_and_the_close_frame_names_them() {
    let gateway = developers();
    let good = printed_token(&gateway).await;
    let wrong = [
        (connect(&good, CLASSROOM, "my label"), 3501, "serialization_failed", "agent_label: [A-Za-z0-9_-]{1,64}"),
        (connect(&good, "my room", "web"), 3501, "serialization_failed", "classroom_id: a UUID with hyphens"),
        (connect("not a token", CLASSROOM, "web"), 3500, "unauthenticated", "token malformed"),
        (
            json!({"type": "connect_request", "payload": {"classroom_id": CLASSROOM, "agent_label": "web"}}),
            3500,
            "unauthenticated",
            "token missing",
        ),
    ];
    for (first, code, name, detail) in wrong {
        let (error, closed, reason) = refused(&gateway, &first).await;
        assert_eq!((closed, reason.as_str(), &error["payload"]["type"]), (code, name, &json!(name)), "{first}");
        assert_eq!(error["payload"]["detail"], detail, "{first}");
    }
    let other = json!({"type": "join_lesson", "payload": {"lesson_id": LESSON}});
    let (error, closed, reason) = refused(&gateway, &other).await;
    assert_eq!((closed, reason.as_str(), &error["payload"]["status"]), (3501, "unsupported_request", &json!(405)));
}

#[tokio::test]
async fn an_expired_token_is_told_from_others() {
    let gateway = Gateway::start(GatewayOptions::new(env!("CARGO_BIN_EXE_rollcall"))).unwrap();
    let mut claims = token::claims("alice", "participant");
    claims["exp"] = json!(1_000_000_000);
    let expired = token::hs256(token::SECRET, &claims);
    let (error, closed, reason) = refused(&gateway, &connect(&expired, CLASSROOM, "web")).await;
    assert_eq!(
        (closed, reason.as_str(), &error["payload"]["detail"]),
        (3500, "unauthenticated", &json!("token expired"))
    );
}

#[tokio::test]
async fn a_page_that_is_refused_is_named_in_the_log_with_the_setting_that_lets_it_in() {
    let gateway = developers();
    let foreign = Client::connect_with(gateway.address(), "/ws", &[("origin", "https://app.example")]).await;
    assert!(matches!(foreign, Err(ClientError::Refused(403))), "{foreign:?}");
    let log = async || gateway.output();
    until("a line", SOON, log, |log| log.contains("ROLLCALL_ORIGINS") && log.contains("https://app.example")).await;
    // A gateway with a key is not for development, so it refuses a page from another port.
    let keyed = Gateway::start(GatewayOptions::new(env!("CARGO_BIN_EXE_rollcall"))).unwrap();
    let page = Client::connect_with(keyed.address(), "/ws", &[("origin", PAGE)]).await;
    assert!(matches!(page, Err(ClientError::Refused(403))), "{page:?}");
}
