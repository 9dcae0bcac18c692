//! PROTOCOL 2 and 3: what ends a connection that is in a classroom, and the reason that history and agent.left give.

use std::time::{Duration, SystemTime};

use crate::common::{Agent, Backend, Classroom, SOON, Whom, agent_event, on_both_kinds, session_error};
use rollcall_loadtest::client::Closing;
use rollcall_loadtest::token;
use serde_json::json;

on_both_kinds!(
    a_violation_of_the_rfc_is_closed_with_the_rfcs_code,
    an_expired_token_ends_the_session,
    a_client_that_does_not_read_is_a_slow_consumer,
);

/// Returns a witness and an agent with this token. Neither has anything left to read.
async fn with_witness<'b>(backend: &'b Backend, room: &'b Classroom, token: &str) -> (Agent, Agent) {
    let mut witness = backend.participant(room, "witness").await;
    let mut agent = backend.enters(room, token).await;
    backend.settled(room, [&mut witness, &mut agent]).await;
    (witness, agent)
}

/// Expects that the witness gets agent.left, and that the history has the reason.
async fn has_left(backend: &Backend, room: &Classroom, witness: &mut Agent, whom: &Whom, reason: &str) {
    witness.sees("left", whom).await;
    assert_eq!(backend.history(room).await, [format!("{}|{}|{reason}", whom.session, whom.id)]);
    if let Some(stored) = backend.stored(&room.subject("agent"), 3).await {
        assert_eq!(stored[2].header("Left-Reason"), reason);
    }
}

async fn was_kicked(backend: &Backend, room: &Classroom, witness: &mut Agent, whom: &Whom, cause: &str) {
    has_left(backend, room, witness, whom, "kicked").await;
    assert_eq!(backend.value(&cause_of(whom)).await, cause);
}

fn cause_of(whom: &Whom) -> String {
    format!("select cause from agent_session_history where id = {}", whom.session)
}

async fn a_violation_of_the_rfc_is_closed_with_the_rfcs_code(backend: &Backend) {
    let unmasked = vec![0x81, 0x02, b'{', b'}'];
    let reserved_bit = vec![0xc1, 0x80, 0, 0, 0, 0];
    let binary = vec![0x82, 0x81, 0, 0, 0, 0, b'x'];
    let no_utf8 = vec![0x81, 0x81, 0, 0, 0, 0, 0xff];
    // The head of a frame that announces 2^62 bytes.
    let too_big = vec![0x81, 0xff, 0x40, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let cases = [(unmasked, 1002), (reserved_bit, 1002), (binary, 1003), (no_utf8, 1007), (too_big, 1009)];
    for (frame, code) in cases {
        let room = backend.classroom();
        let (mut witness, mut agent) = with_witness(backend, room, &room.participant("alice")).await;
        let whom = agent.whom();
        agent.client.send_raw(&frame).await.unwrap();
        let closing = agent.client.expect_close(SOON).await.unwrap();
        assert_eq!(closing, Closing { error: None, code: Some(code) }, "{frame:02x?}");
        was_kicked(backend, room, &mut witness, &whom, "violation").await;
    }
}

async fn an_expired_token_ends_the_session(backend: &Backend) {
    let room = backend.classroom();
    let soon = token::seconds(SystemTime::now() + Duration::from_secs(3));
    let token = room.token_with("alice", &json!({"exp": soon}));
    let (mut witness, mut agent) = with_witness(backend, room, &token).await;
    let whom = agent.whom();
    let closing = agent.client.expect_close(Duration::from_secs(33)).await.unwrap();
    session_error(&closing, "token_expired", 401, 3005);
    was_kicked(backend, room, &mut witness, &whom, "token_expired").await;
}

async fn a_client_that_does_not_read_is_a_slow_consumer(backend: &Backend) {
    let room = backend.classroom();
    let (mut witness, mut agent) = with_witness(backend, room, &room.participant("sleepy")).await;
    let whom = agent.whom();
    // Together these are more than the kernel buffers for a client that does not read, and the queue of 256 KiB.
    let filling = json!({"fill": "x".repeat(100 * 1024)});
    let left = agent_event("left", whom.session, &whom.id);
    for _ in 0..200 {
        backend.publish(&room.subject("note"), &filling);
        let event = witness.client.next_event(SOON).await.unwrap().body;
        if event == left {
            break;
        }
        assert!(event == filling, "those who read lose nothing");
    }
    assert_eq!(backend.history(room).await, [format!("{}|{}|kicked", whom.session, whom.id)]);
    assert_eq!(backend.value(&cause_of(&whom)).await, "slow_consumer");
    // The client now reads what was sent to it.
    let closing = agent.client.expect_close(SOON).await.unwrap();
    session_error(&closing, "slow_consumer", 422, 3008);
}
