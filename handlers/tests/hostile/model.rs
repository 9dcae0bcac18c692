//! A connection is compared with a model. A client sends messages in one piece and without waiting; they are answered
//! in order and as the model says. The others see that each agent that entered, and no other, enters and leaves once.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;

use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use rollcall_loadtest::Client;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::runtime::Runtime;
use tokio::time::timeout;

use crate::common::{Agent, Backend, Classroom, SOON};

/// The first message.
#[derive(Debug, Clone, Copy)]
enum ConnectContext {
    Good,
    Forged,
    ForAnotherClassroom,
    FaultyLabel,
    AnotherEvent,
    NoJson,
}

/// A message after connect_success.
#[derive(Debug, Clone, Copy)]
enum Said {
    Join,
    JoinAnother,
    JoinUnknown,
    JoinNone,
    FaultyPayload,
    Refresh,
    RefreshForged,
    RefreshOfAnother,
    UnknownEvent,
    ConnectAgain,
    NoJson,
}

/// How the client ends the connection.
#[derive(Debug, Clone, Copy)]
enum Last {
    /// A close frame, sent after all answers have come.
    Close,
    /// A close frame, sent at once. Requests that are not yet answered need no answer.
    CloseAtOnce,
    /// An invalid frame, sent at once, and the code with which the gateway closes.
    Violation(&'static [u8], u16),
    /// The end of the stream without a close frame.
    Vanish,
}

#[derive(Debug, Clone)]
struct Script {
    greeting: ConnectContext,
    /// Each message, and whether it has a `ref`.
    said: Vec<(Said, bool)>,
    last: Last,
}

fn script() -> impl Strategy<Value = Script> {
    use Said::*;
    let greeting = prop_oneof![
        8 => Just(ConnectContext::Good),
        1 => prop::sample::select(vec![
            ConnectContext::Forged, ConnectContext::ForAnotherClassroom, ConnectContext::FaultyLabel, ConnectContext::AnotherEvent, ConnectContext::NoJson,
        ]),
    ];
    let said = prop::sample::select(vec![
        Join,
        JoinAnother,
        JoinUnknown,
        JoinNone,
        FaultyPayload,
        Refresh,
        RefreshForged,
        RefreshOfAnother,
        UnknownEvent,
        ConnectAgain,
        NoJson,
    ]);
    let last = prop::sample::select(vec![
        Last::Close,
        Last::Close,
        Last::CloseAtOnce,
        Last::Violation(b"\x81\x00", 1002),
        Last::Violation(b"\x82\x80\0\0\0\0", 1003),
        Last::Violation(b"\x81\x81\0\0\0\0\xff", 1007),
        Last::Violation(b"\x81\xff\x80\0\0\0\0\0\0\0", 1009),
        Last::Vanish,
    ]);
    (greeting, prop::collection::vec((said, any::<bool>()), 0..10), last).prop_map(|(greeting, said, last)| Script {
        greeting,
        said,
        last,
    })
}

/// The model's expectations for one user.
struct Part<'a> {
    room: &'a Classroom,
    name: String,
}

impl Part<'_> {
    fn greeting(&self, greeting: ConnectContext) -> String {
        let token = self.room.participant(&self.name);
        let mut payload = self.room.connect_request(&token, "web");
        match greeting {
            ConnectContext::Good => {}
            ConnectContext::Forged => payload["token"] = json!(format!("{token}A")),
            ConnectContext::ForAnotherClassroom => {
                payload["token"] = json!(self.room.token_with(&self.name, &json!({"classroom_ids": []})));
            }
            ConnectContext::FaultyLabel => payload["agent_label"] = json!("a.b"),
            ConnectContext::AnotherEvent => return json!({"type": "join_lesson", "ref": 1}).to_string(),
            ConnectContext::NoJson => return "[".into(),
        }
        json!({"type": "connect_request", "payload": payload}).to_string()
    }

    fn said(&self, said: Said, reference: Option<usize>) -> String {
        let token = self.room.participant(&self.name);
        let (event, payload) = match said {
            Said::Join => ("join_lesson", json!({"lesson_id": self.room.algebra})),
            Said::JoinAnother => ("join_lesson", json!({"lesson_id": self.room.biology})),
            Said::JoinUnknown => ("join_lesson", json!({"lesson_id": "nowhere"})),
            Said::JoinNone => ("join_lesson", json!({})),
            Said::FaultyPayload => ("join_lesson", json!({"lesson_id": "*"})),
            Said::Refresh => ("refresh", json!({"token": token})),
            Said::RefreshForged => ("refresh", json!({"token": format!("{token}A")})),
            Said::RefreshOfAnother => ("refresh", json!({"token": self.room.participant("another")})),
            Said::UnknownEvent => ("nonsense", json!({})),
            Said::ConnectAgain => return self.greeting(ConnectContext::Good),
            Said::NoJson => return "{".into(),
        };
        let mut message = json!({"type": event, "payload": payload});
        if let Some(reference) = reference {
            message["ref"] = json!(reference);
        }
        message.to_string()
    }
}

/// Returns the session error that answers a first message, or `None` if the client is let in.
fn refusal(greeting: ConnectContext) -> Option<(&'static str, u16)> {
    match greeting {
        ConnectContext::Good => None,
        ConnectContext::Forged => Some(("unauthenticated", 3500)),
        ConnectContext::ForAnotherClassroom => Some(("access_denied", 3507)),
        ConnectContext::FaultyLabel | ConnectContext::NoJson => Some(("serialization_failed", 3501)),
        ConnectContext::AnotherEvent => Some(("unsupported_request", 3501)),
    }
}

/// Returns the ack of a message. A success without `ref` has none.
fn ack(said: Said, reference: Option<usize>) -> Option<Value> {
    let (message, reference) = match said {
        Said::Join | Said::JoinAnother | Said::Refresh => {
            return reference
                .map(|reference| json!({"type": "ack", "ref": reference, "status": "SUCCESS", "data": {}}));
        }
        Said::JoinUnknown => ("lesson not found", reference),
        Said::JoinNone => ("lesson_id is required", reference),
        Said::FaultyPayload => ("invalid payload", reference),
        Said::RefreshForged => ("invalid access token", reference),
        Said::RefreshOfAnother => ("access token of another user", reference),
        Said::UnknownEvent => ("unknown event", reference),
        Said::ConnectAgain => ("already connected", None),
        Said::NoJson => ("invalid payload", None),
    };
    Some(json!({"type": "ack", "ref": reference, "status": "ERROR", "message": message}))
}

fn text(text: &str) -> Vec<u8> {
    let length = u16::try_from(text.len()).unwrap();
    let head = match length {
        short @ 0..126 => vec![0x81, 0x80 | u8::try_from(short).unwrap()],
        long => [&[0x81, 0xfe], &long.to_be_bytes()[..]].concat(),
    };
    [&head[..], &[0; 4], text.as_bytes()].concat()
}

/// What a client received: texts other than events of other agents, and the close frame's code.
#[derive(Debug, Default)]
struct Heard {
    texts: Vec<Value>,
    code: Option<u16>,
}

impl Heard {
    /// Reads until this number of texts has come, or the stream ends.
    async fn listen(&mut self, client: &mut Client, texts: usize) {
        let stream = client.stream();
        while self.texts.len() < texts {
            let Ok(first) = stream.read_u8().await else { return };
            let length = match stream.read_u8().await.unwrap() {
                126 => usize::from(stream.read_u16().await.unwrap()),
                short => usize::from(short),
            };
            let mut payload = vec![0; length];
            stream.read_exact(&mut payload).await.unwrap();
            match first {
                0x81 => {
                    self.texts.extend(serde_json::from_slice(&payload).ok().filter(|said: &Value| said["id"].is_null()))
                }
                0x88 => self.code = payload.first_chunk().map(|code| u16::from_be_bytes(*code)),
                0x89 => {}
                other => panic!("{other:x}"),
            }
        }
    }
}

/// An agent that sees the others enter and leave.
struct Witness {
    observer: Agent,
    /// The events about each agent, in order.
    seen: HashMap<String, Vec<String>>,
}

impl Witness {
    /// Expects that this agent has entered once and left once.
    async fn sees_leaving(&mut self, agent: &str) {
        while self.seen.get(agent).is_none_or(|labels| labels.len() < 2) {
            let event = self.observer.client.next_event(SOON).await.unwrap().body;
            let text = |field: &str| event["payload"][field].as_str().unwrap().to_owned();
            self.seen.entry(text("agent_id")).or_default().push(text("label"));
        }
        assert_eq!(self.seen[agent], ["entered", "left"], "{agent}");
    }
}

async fn plays(backend: &Backend, witness: &mut Witness, part: &Part<'_>, script: &Script) {
    let mut client = backend.client().await;
    let mut bytes = text(&part.greeting(script.greeting));
    let references = script.said.iter().enumerate().map(|(at, (said, has))| (*said, has.then_some(at)));
    let references: Vec<_> = references.collect();
    bytes.extend(references.iter().flat_map(|(said, reference)| text(&part.said(*said, *reference))));
    let acks: Vec<_> = references.iter().filter_map(|(said, reference)| ack(*said, *reference)).collect();
    let refused = refusal(script.greeting);
    let close = [0x88, 0x82, 0, 0, 0, 0, 0x03, 0xe8];
    match script.last {
        Last::CloseAtOnce => bytes.extend(close),
        Last::Violation(frame, _) => bytes.extend(frame),
        Last::Close | Last::Vanish => {}
    }
    client.stream().write_all(&bytes).await.unwrap();
    let mut heard = Heard::default();
    if matches!(script.last, Last::Close | Last::Vanish) {
        heard.listen(&mut client, if refused.is_some() { 1 } else { 1 + acks.len() }).await;
    }
    match script.last {
        // If the client was refused, the stream may have ended already, so a failed write is no fault.
        Last::Close => drop(client.stream().write_all(&close).await),
        Last::Vanish => drop(client.stream().shutdown().await),
        Last::CloseAtOnce | Last::Violation(..) => {}
    }
    heard.listen(&mut client, usize::MAX).await;

    let ends = match script.last {
        Last::Close | Last::CloseAtOnce => Some(1000),
        Last::Violation(_, code) => Some(code),
        Last::Vanish => None,
    };
    let at_once = matches!(script.last, Last::CloseAtOnce | Last::Violation(..));
    if let Some((error, code)) = refused {
        // The check of a token takes time, so the client's own close may overtake the refusal. Other refusals are
        // immediate.
        let overtaken = at_once && heard.texts.is_empty() && heard.code == ends;
        assert!(overtaken || (heard.texts.len() == 1 && heard.code == Some(code)), "{heard:?}");
        assert!(overtaken || heard.texts[0]["payload"]["type"] == error, "{heard:?}");
        return;
    }
    assert_eq!(heard.code, ends, "{heard:?}");
    // The explanations of errors are for people, and other tests check the further fields of a success.
    for answer in &mut heard.texts {
        answer.as_object_mut().unwrap().retain(|key, _| !["detail", "lesson", "expires_at"].contains(&key.as_str()));
    }
    let (success, answers) = match heard.texts.split_first() {
        Some((success, answers)) => (Some(success), answers),
        None => (None, &[][..]),
    };
    assert!(success.is_none_or(|success| success["type"] == "connect_success"), "{heard:?}");
    assert_eq!(answers, &acks[..answers.len()], "{heard:?}");
    assert!(at_once || success.is_some() && answers.len() == acks.len(), "{heard:?}");
    if success.is_some() {
        witness.sees_leaving(&part.room.agent("web", &part.name)).await;
    }
}

#[test]
fn a_connection_behaves_as_its_model() {
    let runtime = Runtime::new().unwrap();
    let backend = Backend::embedded();
    let room = backend.classroom();
    let observer = runtime.block_on(backend.participant(room, "observer"));
    let witness = RefCell::new(Witness { observer, seen: HashMap::new() });
    let number = Cell::new(0);
    let config = ProptestConfig { cases: 150, failure_persistence: None, ..ProptestConfig::default() };
    let outcome = TestRunner::new(config).run(&script(), |script| {
        number.set(number.get() + 1);
        let part = Part { room, name: format!("user-{}", number.get()) };
        let mut witness = witness.borrow_mut();
        runtime.block_on(async { timeout(SOON, plays(backend, &mut witness, &part, &script)).await }).expect("in time");
        Ok(())
    });
    outcome.unwrap();
    // The list includes agents that closed before they got connect_success.
    runtime.block_on(async {
        let mut witness = witness.into_inner();
        let agents: Vec<_> = witness.seen.keys().cloned().collect();
        for agent in agents {
            witness.sees_leaving(&agent).await;
        }
        assert!(witness.seen.values().all(|labels| labels == &["entered", "left"]), "{:?}", witness.seen);
    });
}
