//! Seed 000, the second diagram: an agent leaves a classroom. Each arrow is a numbered comment, followed by its check.

use crate::common::{Agent, Backend, Classroom, SOON, Whom, agent_event_text, next_text, on_both_kinds};
use rollcall_loadtest::client::Closing;
use tokio::io::AsyncWriteExt;

on_both_kinds!(the_diagram, a_broken_socket_is_lost, a_shutdown_is_drained, no_pong_is_timed_out);

/// Returns a witness and an agent. Neither has anything left to read.
async fn two_agents(backend: &Backend) -> (&Classroom, Agent, Agent) {
    let room = backend.classroom();
    let mut witness = backend.participant(room, "witness").await;
    let mut agent = backend.participant(room, "alice").await;
    backend.settled(room, [&mut witness, &mut agent]).await;
    (room, witness, agent)
}

pub(crate) async fn the_diagram(backend: &Backend) {
    let (room, mut witness, agent) = two_agents(backend).await;
    let there = agent.whom();

    // 1. Agent ->> Presence: close connection
    let closing = agent.client.close().await.unwrap();
    assert_eq!(closing, Closing { error: None, code: None }, "the close frame is answered, without a code as it came");

    // 2. Presence ->> Nats: send event "agent.left"
    // The others get it in the seed's own words.
    let seen = next_text(&mut witness.client, SOON).await;
    assert_eq!(seen, agent_event_text("left", there.session, &there.id));
    left_is_in_the_stream(backend, room, &there, "closed").await;

    // 3. Presence ->> DB: move Agent session to history
    // The move is committed together with the event, so a client that has seen the event finds the session in history.
    // 4. DB ->> DB: create session in table agent_session_history
    expect_history(backend, room, &there, "closed").await;
    // 5. DB ->> DB: delete session from table agent_session
    assert_eq!(backend.live(room).await, [format!("{}|{}", witness.session, witness.id)]);

    // agent.left comes once, and nothing follows it.
    backend.nothing_came(room, [&mut witness]).await;
}

/// Expects exactly one agent.entered and then one agent.left of this session in the stream, with all their fields.
async fn left_is_in_the_stream(backend: &Backend, room: &Classroom, whom: &Whom, reason: &str) {
    let Some(mut stored) = backend.stored(&room.subject("agent"), 3).await else { return };
    stored.retain(|message| message.header("Entity-Event-Sequence-Id") == whom.session.to_string());
    let [entered, left] = &stored[..] else { panic!("one entered and one left: {stored:#?}") };
    assert_eq!(entered.body, agent_event_text("entered", whom.session, &whom.id));
    assert_eq!(left.subject, format!("classroom.{}.agent", room.id));
    assert_eq!(left.body, agent_event_text("left", whom.session, &whom.id));
    let (id, nonce) = left.id().rsplit_once(':').unwrap();
    assert_eq!(id, format!("agent.left:{}:{}", backend.installation().await, whom.session));
    assert!(nonce.len() == 12 && nonce.bytes().all(|digit| digit.is_ascii_hexdigit()), "{nonce}");
    assert_eq!(left.header("Sender-Agent-Id"), whom.id);
    assert_eq!(left.header("Entity-Event-Type"), "agent");
    assert_eq!(left.header("Entity-Event-Operation"), "left");
    assert_eq!(left.header("Left-Reason"), reason);
}

/// Expects the session in the history: its id, its agent, the reason, and the times of its beginning and end.
async fn expect_history(backend: &Backend, room: &Classroom, whom: &Whom, reason: &str) {
    let history = backend.history(room).await;
    assert!(history.contains(&format!("{}|{}|{reason}", whom.session, whom.id)), "{history:?}");
    let lifetime = format!("select lifetime from agent_session_history where id = {}", whom.session);
    let lifetime = backend.value(&lifetime).await;
    // A range: ["2026-11-22 06:00:00.000","2026-11-22 06:45:00.000")
    let times = lifetime.strip_prefix("[\"").and_then(|rest| rest.strip_suffix("\")"));
    let (from, to) = times.and_then(|times| times.split_once("\",\"")).unwrap_or_else(|| panic!("{lifetime}"));
    assert!(from <= to && from.starts_with("20"), "{lifetime}");
}

async fn a_broken_socket_is_lost(backend: &Backend) {
    let (room, mut witness, mut agent) = two_agents(backend).await;
    let whom = agent.whom();
    agent.client.stream().shutdown().await.unwrap();
    drop(agent);
    witness.sees("left", &whom).await;
    left_is_in_the_stream(backend, room, &whom, "lost").await;
    expect_history(backend, room, &whom, "lost").await;
}

async fn a_shutdown_is_drained(backend: &Backend) {
    let own = backend.another(Clone::clone);
    let (room, mut witness, mut agent) = two_agents(&own).await;
    let (first, second) = (witness.whom(), agent.whom());
    own.gateway.terminate().unwrap();
    for client in [&mut witness.client, &mut agent.client] {
        let closing = client.expect_close(SOON).await.unwrap();
        crate::common::session_error(&closing, "terminated", 422, 3001);
    }
    own.wait_for_rows("select count(*) from agent_session", &["0"]).await;
    for whom in [first, second] {
        expect_history(&own, room, &whom, "drained").await;
    }
}

async fn no_pong_is_timed_out(backend: &Backend) {
    let own = backend
        .another(|options| options.clone().env("ROLLCALL_PING_INTERVAL", "1s").env("ROLLCALL_PONG_TIMEOUT", "900ms"));
    let (room, mut witness, mut agent) = two_agents(&own).await;
    let whom = agent.whom();
    // The witness answers pings while it waits. The agent does not, because nothing reads its socket.
    witness.sees("left", &whom).await;
    left_is_in_the_stream(&own, room, &whom, "timed_out").await;
    expect_history(&own, room, &whom, "timed_out").await;
    let closing = agent.client.expect_close(SOON).await.unwrap();
    crate::common::session_error(&closing, "pong_timed_out", 422, 3012);
}
