//! Which agents are in a classroom (PROTOCOL 9): the object AGENT, and a page of agents as clients get it.
//!
//! Invariant: a page is encoded once for all clients that ask for it at the same time.
use serde::Serialize;
use serde_json::value::RawValue;

use crate::{
    id::{AgentId, LessonId, Seat, SessionId, StateVersion},
    object::JsonObject,
    role::Role,
    wire,
};

/// The maximum number of agents in a page.
pub const MAX_PAGE: usize = 1000;
/// The longest text of a page for clients, in bytes. A page ends before it, but has at least one agent.
pub const MAX_PAGE_BYTES: usize = 64 * 1024;

/// An agent as the roster shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RosterAgent {
    /// The agent's session.
    pub session_id: SessionId,
    /// The agent's id.
    pub agent_id: AgentId,
    /// The role in the agent's token.
    pub role: Role,
    /// The lesson that the agent has joined.
    pub lesson_id: Option<LessonId>,
    /// The agent's seat in that lesson, if it has one.
    pub seat: Option<Seat>,
    /// The version of the agent's role, info and state.
    pub state_n: StateVersion,
    /// The `info` of the agent's token, if it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub info: Option<JsonObject>,
    /// The agent's state, if it has set one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<JsonObject>,
}

/// An agent in a list over HTTP. Its session id has a second name, which the lists of other services use.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ListedAgent<'a> {
    id: SessionId,
    sequence_id: SessionId,
    #[serde(flatten)]
    agent: &'a RosterAgent,
}

impl<'a> From<&'a RosterAgent> for ListedAgent<'a> {
    fn from(agent: &'a RosterAgent) -> Self {
        Self { id: agent.session_id, sequence_id: agent.session_id, agent }
    }
}

/// A page of a roster, as it is in the data of an ack.
#[derive(Clone, Debug, Serialize)]
pub struct RosterPage {
    /// The encoded array `[AGENT, ...]`.
    pub agents: Box<RawValue>,
    /// The session after which the next page begins, if there is one.
    pub next: Option<SessionId>,
}

impl RosterPage {
    /// Encodes the first `limit` of these agents, which ascend by session. `shown` makes the object that is written for
    /// an agent.
    pub fn encode<'a, T: Serialize>(
        agents: &'a [RosterAgent],
        limit: usize,
        shown: impl Fn(&'a RosterAgent) -> T,
    ) -> Self {
        let mut text = String::from("[");
        let (mut last, mut next) = (None, None);
        for (place, agent) in agents.iter().enumerate() {
            let item = wire::text(&shown(agent));
            if place == limit || place > 0 && text.len() + item.len() + 2 > MAX_PAGE_BYTES {
                next = last;
                break;
            }
            if place > 0 {
                text.push(',');
            }
            text.push_str(&item);
            last = Some(agent.session_id);
        }
        text.push(']');
        Self { agents: RawValue::from_string(text).expect("an array of objects is JSON"), next }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn agents(count: i64, state: Option<&str>) -> Vec<RosterAgent> {
        let agent = |session| RosterAgent {
            session_id: SessionId(session),
            agent_id: AgentId::parse("web.alice.example.org").expect("an agent"),
            role: Role::Teacher,
            lesson_id: (session == 1).then(|| LessonId::parse("demo").expect("a lesson")),
            seat: (session == 1).then_some(Seat(3)),
            state_n: StateVersion(7 * session),
            info: None,
            state: state.map(|state| JsonObject::parse(state).expect("an object")),
        };
        (1..=count).map(agent).collect()
    }

    #[test]
    fn an_agent_has_its_fields_and_no_others() {
        let page = RosterPage::encode(&agents(1, None), MAX_PAGE, |agent| agent);
        let agent = r#"{"session_id":1,"agent_id":"web.alice.example.org","role":"teacher","lesson_id":"demo","seat":3,"state_n":7}"#;
        assert_eq!((page.agents.get(), page.next), (&*format!("[{agent}]"), None));
        let listed = RosterPage::encode(&agents(1, Some(r#"{"hand":true}"#)), MAX_PAGE, ListedAgent::from);
        let agent = agent.replacen('{', r#"{"id":1,"sequence_id":1,"#, 1).replace('}', r#","state":{"hand":true}}"#);
        assert_eq!(listed.agents.get(), format!("[{agent}]"));
    }

    #[test]
    fn a_page_ends_at_its_limit_and_before_64_kib() {
        let few = agents(3, None);
        assert_eq!(RosterPage::encode(&few, 3, |agent| agent).next, None);
        assert_eq!(RosterPage::encode(&few, 2, |agent| agent).next, Some(SessionId(2)));
        assert_eq!(RosterPage::encode(&[], 2, |agent| agent).agents.get(), "[]");
        let state = format!(r#"{{"a":"{}"}}"#, "x".repeat(900));
        let many = agents(100, Some(&state));
        let page = RosterPage::encode(&many, MAX_PAGE, |agent| agent);
        assert!(page.agents.get().len() <= MAX_PAGE_BYTES, "{}", page.agents.get().len());
        let next = page.next.expect("more follow");
        let rest = RosterPage::encode(&many[usize::try_from(next.0).expect("a place")..], MAX_PAGE, |agent| agent);
        assert_eq!(rest.next, None);
        let count = |page: &RosterPage| page.agents.get().matches("session_id").count();
        assert_eq!(count(&page) + count(&rest), 100);
    }
}
