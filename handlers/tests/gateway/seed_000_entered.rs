//! Seed 000, the first diagram: an agent enters a classroom. Each arrow is a numbered comment, followed by its check.

use std::time::Duration;

use crate::common::{
    Agent, Backend, Classroom, Frame, PONG, SOON, agent_event, agent_event_text, next_frame, next_text, on_both_kinds,
};
use rollcall_loadtest::{Client, token};
use serde_json::{Value, json};

on_both_kinds!(the_diagram, pings_come_at_the_interval_that_success_names);

/// The agent of the seed's example.
const AGENT: &str = "dev.testing01.svc.foxford.ru";

fn token() -> String {
    let mut claims = token::claims("testing01", "participant");
    claims["aud"] = json!("svc.foxford.ru");
    token::hs256(token::SECRET, &claims)
}

pub(crate) async fn the_diagram(backend: &Backend) {
    let room = backend.classroom();
    // An agent that is in the classroom already. It sees what the others get.
    let mut witness = backend.participant(room, "witness").await;
    backend.settled(room, [&mut witness]).await;

    // 1. Agent ->> Presence: ws connect
    let mut client = backend.client().await;
    assert_eq!(backend.live(room).await, [format!("{}|{}", witness.session, witness.id)]);

    // 2. Agent ->> Presence: connect request w/ token
    let request = json!({"type": "connect_request", "payload": room.connect_request(&token(), "dev")});
    client.send(&request).await.unwrap();
    let first_frame = next_text(&mut client, SOON).await;

    // 3. Presence ->> DB: create session in table agent_session for Agent
    // The row is there before connect_success comes, so the test does not wait.
    let row = format!(
        "select id, agent_id, node_id is not null, sid, role, lesson_id, seat, started_at is not null \
         from agent_session where classroom_id = '{}' and agent_id = '{AGENT}'",
        room.id
    );
    let row = backend.value(&row).await;
    let columns: Vec<_> = row.split('|').collect();
    let [session, AGENT, node, sid, "participant", "", "", started] = columns[..] else { panic!("{row}") };
    assert!([node, started].iter().all(|there| ["t", "1"].contains(there)), "{row}");
    let session: i64 = session.parse().unwrap();

    // 4. Presence ->> Nats: send event "agent.entered"
    entered_is_in_the_stream(backend, room, session).await;

    // 5. Presence ->> Nats: subscribe to subject "classroom.<classroom_id>.*"
    // The subscription is live before connect_success, so every event published after it arrives (see 10, 11 and 12).

    // 6. Presence ->> Agent: success
    // The first frame of all, and the seed's order of what is in it.
    const VERSION: &str = env!("CARGO_PKG_VERSION");
    let expires = serde_json::from_str::<Value>(&first_frame).unwrap()["payload"]["expires_at"].as_u64().unwrap();
    assert!(expires > 1_700_000_000, "Unix seconds: {expires}");
    let ids = format!(
        r#""session_id":{session},"agent_id":"{AGENT}","sid":"{sid}","ping_interval":30,"expires_at":{expires}"#
    );
    let contract = format!(r#""protocol":1,"version":"{VERSION}""#);
    assert_eq!(first_frame, format!(r#"{{"type":"connect_success","payload":{{{ids},{contract}}}}}"#));

    // The others get it in the seed's own words, once.
    let seen = next_text(&mut witness.client, SOON).await;
    assert_eq!(seen, agent_event_text("entered", session, AGENT));

    // 7, 8. loop Every 30s: Presence->>Agent: ping; Agent->>Presence: pong
    // pings_come_at_the_interval_that_success_names

    // 9. Nats ->> Nats: get new events from other services
    let mut agent = agent(client, session, sid);
    let event = json!({"id": {"entity_type": "note", "operation": "made", "sequence_id": 7}, "payload": {}});
    backend.publish(&room.subject("note"), &event);
    // 10. Nats ->> Presence: send new events for Agent
    // 11. Presence ->> Agent: resend new events for Agent
    // The first event that the agent gets: its own agent.entered, which the witness has seen, never comes.
    assert_eq!(agent.client.next_event(SOON).await.unwrap().body, event);
    assert_eq!(witness.client.next_event(SOON).await.unwrap().body, event);
}

fn agent(client: Client, session: i64, sid: &str) -> Agent {
    Agent::of(client, &json!({"session_id": session, "agent_id": AGENT, "sid": sid}))
}

async fn entered_is_in_the_stream(backend: &Backend, room: &Classroom, session: i64) {
    let Some(stored) = backend.stored(&room.subject("agent"), 2).await else { return };
    let [_, entered] = &stored[..] else { panic!("the witness's and the agent's: {stored:#?}") };
    assert_eq!(entered.subject, format!("classroom.{}.agent", room.id));
    assert_eq!(entered.body, agent_event_text("entered", session, AGENT));
    assert_eq!(serde_json::from_str::<Value>(&entered.body).unwrap(), agent_event("entered", session, AGENT));
    let (id, nonce) = entered.id().rsplit_once(':').unwrap();
    assert_eq!(id, format!("agent.entered:{}:{}", backend.installation().await, session));
    assert!(nonce.len() == 12 && nonce.bytes().all(|digit| digit.is_ascii_hexdigit()), "{nonce}");
    assert_eq!(entered.header("Sender-Agent-Id"), AGENT);
    assert_eq!(entered.header("Entity-Event-Type"), "agent");
    assert_eq!(entered.header("Entity-Event-Operation"), "entered");
    assert_eq!(entered.header("Entity-Event-Sequence-Id"), session.to_string());
    assert!(!entered.headers.contains_key("Left-Reason"), "{entered:?}");
    // A row leaves the outbox once its event is published.
    let outbox = format!("select count(*) from outbox where classroom_id = '{}'", room.id);
    backend.wait_for_rows(&outbox, &["0"]).await;
}

async fn pings_come_at_the_interval_that_success_names(backend: &Backend) {
    // The diagram's success names the default, 30 s; this gateway has a shorter interval.
    let own = backend
        .another(|options| options.clone().env("ROLLCALL_PING_INTERVAL", "1s").env("ROLLCALL_PONG_TIMEOUT", "900ms"));
    let room = own.classroom();
    let mut client = own.client().await;
    let success = client.connect_request(&room.participant("patient"), &room.id, "web").await.unwrap();
    assert_eq!(success["ping_interval"], 1);
    let mut agent = Agent::of(client, &success);
    for _ in 0..3 {
        // 7. Presence->>Agent: ping
        assert_eq!(next_frame(&mut agent.client, Duration::from_secs(2)).await, Frame::Ping);
        // 8. Agent->>Presence: pong
        agent.client.send_raw(&PONG).await.unwrap();
    }
    own.nothing_came(room, [&mut agent]).await;
}
