//! PROTOCOL 10: events whose handler is a service, over HTTP. The hostile tests cover services that misbehave.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::hmac;
use rollcall_loadtest::GatewayOptions;
use rollcall_loadtest::servers::Nats;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::common::{
    Agent, Backend, Call, FUNCTIONS_SECRET, Function, FunctionsFile, Reply, SOON, Servers, on_both_kinds, until,
};

on_both_kinds![
    it_is_told_of_the_call_and_its_answer_is_the_ack,
    what_it_publishes_comes_to_those_it_names,
    events_of_one_caller_keep_their_order,
];

/// Returns a gateway on the same kind of backend. Its event `vote` calls this function.
fn with(kind: &Backend, function: &Function) -> (Backend, FunctionsFile) {
    let file = FunctionsFile::new(&[("vote", &function.url(), "")]);
    (kind.another(|options| file.on(options)), file)
}

fn signature(call: &Call) -> String {
    let key = STANDARD.decode(FUNCTIONS_SECRET.trim_start_matches("whsec_")).unwrap();
    let signed = format!("{}.{}.{}", call.headers["webhook-id"], call.headers["webhook-timestamp"], call.body);
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &key), signed.as_bytes());
    format!("v1,{}", STANDARD.encode(tag))
}

async fn it_is_told_of_the_call_and_its_answer_is_the_ack(kind: &Backend) {
    let function = Function::start(|call| match call["payload"]["for"].as_str() {
        Some("tea") => Reply::Json(200, json!({"data": {"votes": 7}})),
        Some("nothing") => Reply::Json(200, json!({})),
        _ => Reply::Json(409, json!({"message": "the poll is over"})),
    })
    .await;
    let (backend, _file) = with(kind, &function);
    let room = backend.classroom();
    let info = json!({"name": "Tess"});
    let token = room.token_with("tess", &json!({"role": "teacher", "info": info}));
    let mut alice = backend.enters(room, &token).await;
    alice.joins(&room.algebra).await;
    let ack = alice.client.request("vote", json!({"for": "tea", "n": 1.50})).await.unwrap();
    assert_eq!((&ack["status"], &ack["data"]), (&json!("SUCCESS"), &json!({"votes": 7})), "{ack}");
    let ack = alice.client.request("vote", json!({"for": "nothing"})).await.unwrap();
    assert_eq!((&ack["status"], &ack["data"]), (&json!("SUCCESS"), &json!({})), "{ack}");
    let ack = alice.client.request("vote", json!({})).await.unwrap();
    assert_eq!((&ack["status"], &ack["message"]), (&json!("ERROR"), &json!("the poll is over")), "{ack}");

    let calls = function.calls();
    assert_eq!(calls.len(), 3);
    let told: Value = serde_json::from_str(&calls[0].body).unwrap();
    let session = json!({
        "session_id": alice.session, "agent_id": alice.id, "classroom_id": room.id, "role": "teacher",
        "sid": alice.sid, "lesson_id": room.algebra, "seat": told["session"]["seat"], "info": info,
    });
    assert_eq!(told, json!({"event": "vote", "payload": {"for": "tea", "n": 1.50}, "session": session}));
    assert!(told["session"]["seat"].is_u64());
    for call in &calls {
        assert_eq!(call.headers["webhook-signature"], signature(call));
        assert_eq!(call.headers["content-type"], "application/json");
    }
    assert_ne!(calls[0].headers["webhook-id"], calls[1].headers["webhook-id"]);
    let answered = |outcome: &str| {
        let labels = ["function=\"vote\"", outcome];
        backend.gateway.metric("rollcall_function_calls_total", &labels).unwrap()
    };
    assert_eq!((answered("outcome=\"success\""), answered("outcome=\"refused\"")), (2.0, 1.0));
}

/// Returns an event in the list that a function publishes.
fn item(to: &str, agent: Option<&str>, number: u64) -> Value {
    // The `id` in the body stays a part of the payload, so a function cannot forge an event.
    let body = json!({"id": {"entity_type": "agent", "operation": "left", "sequence_id": 1}, "n": number});
    json!({"to": to, "agent_id": agent, "entity_type": "poll", "operation": "closed", "body": body})
}

/// Reads the numbers of the events until a fence comes.
async fn numbers(backend: &Backend, subject: &str, agent: &mut Agent) -> Vec<u64> {
    let events = backend.fence_on(subject).read_to(agent).await;
    let pushed = events.iter().filter(|event| event.body["id"]["entity_type"] == "poll");
    pushed.map(|event| event.body["payload"]["n"].as_u64().unwrap()).collect()
}

async fn what_it_publishes_comes_to_those_it_names(kind: &Backend) {
    let function = Function::start(|call| {
        let caller = call["session"]["agent_id"].as_str();
        let bob = call["payload"]["bob"].as_str();
        let items =
            [item("lesson", None, 1), item("classroom", None, 2), item("agent", bob, 3), item("agent", caller, 4)];
        Reply::Json(200, json!({"publish": items}))
    })
    .await;
    let (backend, _file) = with(kind, &function);
    let room = backend.classroom();
    let mut alice = backend.participant(room, "alice").await;
    let mut bob = backend.participant(room, "bob").await;
    let mut carol = backend.participant(room, "carol").await;
    let ack = alice.client.request("vote", json!({"bob": bob.id})).await.unwrap();
    assert_eq!(ack["message"], "not in a lesson", "{ack}");
    alice.joins(&room.algebra).await;
    bob.joins(&room.algebra).await;
    let ack = alice.client.request("vote", json!({"bob": bob.id})).await.unwrap();
    assert_eq!(ack["status"], "SUCCESS", "{ack}");
    let (classroom, lesson) = (room.subject("note"), format!("lesson.{}.note", room.algebra));
    // The events of the two rooms come on two subscriptions, so each room is read to a fence of its own.
    let mut of_bob = numbers(&backend, &lesson, &mut bob).await;
    of_bob.extend(numbers(&backend, &classroom, &mut bob).await);
    of_bob.sort_unstable();
    assert_eq!(of_bob, [1, 2, 3]);
    assert_eq!(numbers(&backend, &classroom, &mut carol).await, [2]);
    assert_eq!(numbers(&backend, &classroom, &mut alice).await, [4]);
    if let Some(stored) = backend.stored(&format!("lesson.{}.poll", room.algebra), 1).await {
        let calls = function.calls();
        assert_eq!(stored.len(), 1, "the call before was in no lesson: nothing of it was published");
        assert_eq!(stored[0].id(), format!("{}:0", calls[1].headers["webhook-id"]));
        assert_eq!(stored[0].header("Sender-Agent-Id"), alice.id);
    }
}

async fn events_of_one_caller_keep_their_order(kind: &Backend) {
    let function = Function::start(|call| {
        let number = call["payload"]["n"].as_u64().unwrap();
        Reply::Json(200, json!({"publish": [item("lesson", None, number), item("lesson", None, number + 1)]}))
    })
    .await;
    let (backend, _file) = with(kind, &function);
    let room = backend.classroom();
    let mut alice = backend.participant(room, "alice").await;
    let mut bob = backend.participant(room, "bob").await;
    alice.joins(&room.algebra).await;
    bob.joins(&room.algebra).await;
    // Each event is sent without waiting for the answers to those before.
    for number in (0..100).step_by(2) {
        alice.client.send(&json!({"type": "vote", "payload": {"n": number}})).await.unwrap();
    }
    let ack = alice.client.request("vote", json!({"n": 100})).await.unwrap();
    assert_eq!(ack["status"], "SUCCESS", "{ack}");
    let came = numbers(&backend, &format!("lesson.{}.note", room.algebra), &mut bob).await;
    assert_eq!(came, (0..102).collect::<Vec<_>>());
}

/// A client that is told to try again may do so, and the first try's event must not be published after the second's.
#[tokio::test]
async fn while_nats_is_away_nothing_is_published_then_or_later() {
    let mut nats = Nats::start().unwrap();
    let function = Function::start(|call| {
        let number = call["payload"]["n"].as_u64().unwrap();
        Reply::Json(200, json!({"publish": [item("lesson", None, number)]}))
    })
    .await;
    let file = FunctionsFile::new(&[("vote", &function.url(), "")]);
    let servers = Servers { nats: nats.url(), ..Servers::shared() };
    let backend = Backend::start(Some(servers), |options| file.on(options));
    let room = backend.classroom();
    let mut alice = backend.participant(room, "alice").await;
    let mut bob = backend.participant(room, "bob").await;
    alice.joins(&room.algebra).await;
    bob.joins(&room.algebra).await;
    nats.kill().unwrap();
    let ack = alice.client.request("vote", json!({"n": 1})).await.unwrap();
    assert_eq!(ack["message"], "try again later", "{ack}");
    nats.restart().unwrap();
    let again = async || alice.client.request("vote", json!({"n": 2})).await.unwrap()["status"].clone();
    until("NATS is back", SOON, again, |status| *status == "SUCCESS").await;
    let came = numbers(&backend, &format!("lesson.{}.note", room.algebra), &mut bob).await;
    assert!(!came.is_empty() && came.iter().all(|number| *number == 2), "{came:?}");
}

/// The call names a guest as such, and a guest may not publish.
#[tokio::test]
async fn a_guest_has_no_session() {
    let function = Function::start(|call| match call["payload"]["publish"].as_bool() {
        Some(true) => Reply::Json(200, json!({"publish": [item("classroom", None, 1)]})),
        _ => Reply::Json(200, json!({"data": call["session"]})),
    })
    .await;
    let file = FunctionsFile::new(&[("vote", &function.url(), "")]);
    let backend = Backend::embedded().another(|options| file.on(options).env("ROLLCALL_GUESTS", "true"));
    let room = backend.classroom();
    let mut guest = backend.client().await;
    let request = json!({"classroom_id": room.id, "agent_label": "web"});
    let success = guest.connect_request_with(request).await.unwrap();
    let ack = guest.request("vote", json!({})).await.unwrap();
    let told = json!({
        "session_id": null, "agent_id": null, "classroom_id": room.id, "role": null, "sid": success["sid"],
        "lesson_id": null, "seat": null, "info": null,
    });
    assert_eq!(ack["data"], told);
    let ack = guest.request("vote", json!({"publish": true})).await.unwrap();
    assert_eq!(ack["message"], "not in a classroom", "{ack}");
}

async fn status_of_an_unsigned_call(address: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let headers = "webhook-id: x\r\nwebhook-timestamp: 1\r\nwebhook-signature: v1,x\r\ncontent-length: 2\r\n";
    stream.write_all(format!("POST / HTTP/1.1\r\nhost: x\r\n{headers}\r\n{{}}").as_bytes()).await.unwrap();
    let mut status = [0; 12];
    timeout(SOON, stream.read_exact(&mut status)).await.unwrap().unwrap();
    String::from_utf8(status.to_vec()).unwrap()
}

#[tokio::test]
async fn a_check_names_the_functions_and_every_fault_of_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let check = |file: &FunctionsFile| {
        let options = file.on(&GatewayOptions::new(env!("CARGO_BIN_EXE_rollcall")));
        options.arg("check").command().current_dir(folder.path()).output().unwrap()
    };
    let output = check(&FunctionsFile::new(&[("vote", "http://127.0.0.1:1/vote", "")]));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success() && text.contains("vote at http://127.0.0.1:1/vote"), "{output:?}");
    let faulty = [("join_lesson", "http://127.0.0.1:1/", ""), ("connect_request", "ftp://x/", "concurrency = 0")];
    let output = check(&FunctionsFile::new(&faulty));
    assert_eq!(output.status.code(), Some(64), "{output:?}");
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    let faults = ["join_lesson has a handler already", "connect_request has a handler already", "url: write", "from 1"];
    assert!(faults.iter().all(|fault| text.contains(fault)) && text.lines().count() == 4, "{text}");
}

/// A process that is killed when this value is dropped.
struct Service(Child);

impl Drop for Service {
    fn drop(&mut self) {
        // The whole process group is killed, because `go run` and `tsx` start another process.
        let group = i32::try_from(self.0.id()).unwrap();
        let _ = Command::new("kill").args(["-KILL", "--", &format!("-{group}")]).status();
        let _ = self.0.wait();
    }
}

/// How to run each example. The first start of the Go example compiles Go's standard library.
const EXAMPLES: [(&[&str], &str); 3] =
    [(&["python3"], "raise_hand.py"), (&["tsx"], "raise_hand.ts"), (&["go", "run"], "raise_hand.go")];
const START: Duration = Duration::from_secs(120);

#[tokio::test]
async fn the_examples_in_three_languages_raise_hands() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/functions");
    for (command, file) in EXAMPLES {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut service = Command::new(command[0]);
        service.args(&command[1..]).arg(folder.join(file)).env("PORT", port.to_string());
        service.env("ROLLCALL_FUNCTIONS_SECRET", FUNCTIONS_SECRET);
        service.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        std::os::unix::process::CommandExt::process_group(&mut service, 0);
        let service = service.spawn().unwrap_or_else(|error| panic!("{}: {error}", command[0]));
        let _service = Service(service);
        let address = format!("127.0.0.1:{port}");
        until(file, START, async || TcpStream::connect(&address).await.is_ok(), |up| *up).await;

        let functions = FunctionsFile::new(&[("raise_hand", &format!("http://{address}/raise_hand"), "")]);
        let backend = Backend::embedded().another(|options: &GatewayOptions| functions.on(options));
        let room = backend.classroom();
        let mut alice = backend.participant(room, "alice").await;
        let mut bob = backend.participant(room, "bob").await;
        alice.joins(&room.algebra).await;
        bob.joins(&room.algebra).await;
        backend.settled(room, [&mut alice, &mut bob]).await;
        for hand in ["left", "right"] {
            let ack = bob.client.request("raise_hand", json!({"hand": hand})).await.unwrap();
            let raised = json!({"by": bob.id, "hand": hand});
            assert_eq!((&ack["status"], &ack["data"]), (&json!("SUCCESS"), &raised), "{file}: {ack}");
            let event = alice.client.next_event(SOON).await.unwrap();
            let id = json!({"entity_type": "hand", "operation": "raised", "sequence_id": bob.session});
            assert_eq!(event.body, json!({"id": id, "payload": raised}), "{file}");
        }
        // A call that the gateway has not signed is refused.
        assert_eq!(status_of_an_unsigned_call(&address).await, "HTTP/1.1 401", "{file}");
    }
}
