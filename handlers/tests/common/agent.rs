//! An agent that has entered a classroom, and a client whose connect is refused.

use rollcall_loadtest::Client;
use rollcall_loadtest::client::{ClientError, Closing};
use serde_json::{Value, json};

use super::{Backend, Classroom, SOON};

/// An agent that has entered a classroom.
#[derive(Debug)]
pub(crate) struct Agent {
    pub(crate) client: Client,
    pub(crate) id: String,
    pub(crate) session: i64,
    pub(crate) sid: String,
}

impl Agent {
    /// Returns the agent that entered on `client`, from its connect_success.
    pub(crate) fn of(client: Client, success: &Value) -> Self {
        let text = |field: &str| success[field].as_str().unwrap_or_else(|| panic!("{field} in {success}")).to_owned();
        Self { client, id: text("agent_id"), session: success["session_id"].as_i64().unwrap(), sid: text("sid") }
    }

    /// Expects agent.entered or agent.left of this session as the next event.
    pub(crate) async fn sees(&mut self, label: &str, other: &Whom) {
        let event = self.client.next_event(SOON).await.unwrap();
        assert_eq!(event.body, agent_event(label, other.session, &other.id));
    }

    /// Returns what identifies this agent in others' events, also after it has gone.
    pub(crate) fn whom(&self) -> Whom {
        Whom { id: self.id.clone(), session: self.session }
    }

    /// Joins a lesson, and expects success.
    pub(crate) async fn joins(&mut self, lesson: &str) {
        let ack = self.client.join_lesson(lesson).await.unwrap();
        assert_eq!((&ack["status"], &ack["data"]), (&json!("SUCCESS"), &json!({})), "{ack}");
    }

    /// Asks to join a lesson, and expects this error.
    pub(crate) async fn is_refused(&mut self, payload: Value, message: &str) {
        let ack = self.client.request("join_lesson", payload.clone()).await.unwrap();
        let said = (&ack["status"], &ack["message"]);
        assert_eq!(said, (&json!("ERROR"), &json!(message)), "{payload}");
    }

    /// Leaves with a close frame.
    pub(crate) async fn leaves(self) -> Whom {
        let whom = self.whom();
        self.client.close().await.unwrap();
        whom
    }
}

/// The agent that an event is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Whom {
    pub(crate) id: String,
    pub(crate) session: i64,
}

/// Returns the event of a session's entering or leaving, as the seed defines it.
pub(crate) fn agent_event(label: &str, session: i64, agent: &str) -> Value {
    json!({
        "id": {"entity_type": "agent", "operation": label, "sequence_id": session},
        "payload": {"version": "v1", "entity_type": "agent", "label": label, "agent_id": agent},
    })
}

/// Returns the same event as text, with its keys in the seed's order.
pub(crate) fn agent_event_text(label: &str, session: i64, agent: &str) -> String {
    let id = format!(r#"{{"entity_type":"agent","operation":"{label}","sequence_id":{session}}}"#);
    let payload = format!(r#"{{"version":"v1","entity_type":"agent","label":"{label}","agent_id":"{agent}"}}"#);
    format!(r#"{{"id":{id},"payload":{payload}}}"#)
}

impl Backend {
    /// Returns a WebSocket connection that has not sent anything.
    pub(crate) async fn client(&self) -> Client {
        Client::connect(self.gateway.address()).await.unwrap()
    }

    /// Enters as an agent with this token and the label `web`.
    pub(crate) async fn enters(&self, room: &Classroom, token: &str) -> Agent {
        self.enters_as(room, token, "web").await
    }

    /// Enters as an agent with this token and this label.
    pub(crate) async fn enters_as(&self, room: &Classroom, token: &str, label: &str) -> Agent {
        let mut client = self.client().await;
        let success = client.connect_request(token, &room.id, label).await.unwrap();
        Agent::of(client, &success)
    }

    /// Enters as a participant with this name.
    pub(crate) async fn participant(&self, room: &Classroom, name: &str) -> Agent {
        self.enters(room, &room.participant(name)).await
    }

    /// Enters as a teacher with this name.
    pub(crate) async fn teacher(&self, room: &Classroom, name: &str) -> Agent {
        self.enters(room, &room.teacher(name)).await
    }
}

/// Sends this first message, and returns how the gateway closed the connection.
pub(crate) async fn refused(backend: &Backend, first_message: &str) -> Closing {
    let mut client = backend.client().await;
    client.send_text(first_message).await.unwrap();
    match client.next_message(SOON).await {
        Ok(message) if message["type"] == "connect_success" => panic!("let in: {first_message}"),
        Ok(message) => Closing { error: Some(message), ..client.expect_close(SOON).await.unwrap() },
        Err(ClientError::Closed(closing)) => closing,
        Err(other) => panic!("{first_message}: {other}"),
    }
}

/// Expects that a connection ended with this row of the table of session errors in PROTOCOL 2.
#[track_caller]
pub(crate) fn session_error(closing: &Closing, kind: &str, status: u16, code: u16) {
    assert_eq!(closing.code, Some(code), "{closing:?}");
    let error = closing.error.as_ref().unwrap_or_else(|| panic!("a message before the close frame: {closing:?}"));
    let recoverable = code < 3500;
    let envelope = if recoverable { "recoverable_session_error" } else { "unrecoverable_session_error" };
    assert_eq!(error["type"], envelope, "{error}");
    let payload = &error["payload"];
    assert_eq!((&payload["type"], &payload["status"]), (&json!(kind), &json!(status)), "{error}");
    assert!(payload["title"].as_str().is_some_and(|title| !title.is_empty()), "{error}");
    assert_eq!(payload["reconnect_after_ms"].is_u64(), recoverable, "{error}");
}
