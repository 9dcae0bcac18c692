//! Events of other services, and the fence, an event that shows that no other event came before it.

use rollcall_loadtest::client::Event;
use serde_json::{Value, json};
use uuid::Uuid;

use super::{Agent, Backend, Classroom, SOON};

/// An event that comes after everything that was published to the same room before. An agent whose next event is the
/// fence got nothing in between, so a test need not wait to see that nothing comes.
#[derive(Debug)]
pub(crate) struct Fence {
    body: Value,
}

impl Fence {
    /// Expects that the agent's next event is this fence.
    pub(crate) async fn is_next_for(&self, agent: &mut Agent) {
        let next = agent.client.next_event(SOON).await.unwrap();
        assert_eq!(next.body, self.body, "nothing came before the fence for {}", agent.id);
    }

    /// Reads all events that come before this fence.
    pub(crate) async fn read_to(&self, agent: &mut Agent) -> Vec<Event> {
        let mut before = Vec::new();
        loop {
            let event = agent.client.next_event(SOON).await.unwrap();
            if self.is(&event.body) {
                return before;
            }
            before.push(event);
        }
    }

    /// Returns whether this event is the fence.
    pub(crate) fn is(&self, body: &Value) -> bool {
        *body == self.body
    }
}

impl Backend {
    /// Publishes a fence to a classroom.
    pub(crate) fn fence(&self, room: &Classroom) -> Fence {
        self.fence_on(&room.subject("note"))
    }

    /// Publishes a fence to a subject.
    pub(crate) fn fence_on(&self, subject: &str) -> Fence {
        let body = json!({"fence": Uuid::new_v4().to_string()});
        self.publish(subject, &body);
        Fence { body }
    }

    /// Publishes an event through the admin address.
    pub(crate) fn publish(&self, subject: &str, body: &Value) {
        let answer = self.gateway.post("/api/v1/publish", &json!({"subject": subject, "body": body})).unwrap();
        assert_eq!(answer.0, 202, "{answer:?}");
    }

    /// Reads until everything that these agents and others did is published and has reached these agents. An agent that
    /// enters may get events of agents that entered a moment before it; after this call such events no longer come.
    pub(crate) async fn settled<const N: usize>(&self, room: &Classroom, agents: [&mut Agent; N]) {
        let waiting = format!("select count(*) from outbox where classroom_id = '{}'", room.id);
        self.wait_for_rows(&waiting, &["0"]).await;
        let fence = self.fence(room);
        for agent in agents {
            fence.read_to(agent).await;
        }
    }

    /// Expects that none of these agents has anything to read.
    pub(crate) async fn nothing_came<const N: usize>(&self, room: &Classroom, agents: [&mut Agent; N]) {
        let fence = self.fence(room);
        for agent in agents {
            fence.is_next_for(agent).await;
        }
    }
}
