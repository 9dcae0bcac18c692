//! Who is in a classroom (PROTOCOL 9): AGENT, and a page of them as clients get it.
//!
//! Invariant: a page is encoded once for all who ask for it at the same time.
use serde::Serialize;
use serde_json::value::RawValue;

use crate::{
    id::{AgentId, LessonId, Seat, SessionId, StateVersion},
    object::JsonObject,
    role::Role,
    wire,
};

/// The most agents of a page.
pub const MAX_PAGE: usize = 1000;
/// A page for clients ends before its text is longer than this, but has at least one agent.
pub const MAX_PAGE_BYTES: usize = 64 * 1024;

/// An agent as the roster shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RosterAgent {
    /// Its session.
    pub session_id: SessionId,
    /// The agent.
    pub agent_id: AgentId,
    /// Its token's role.
    pub role: Role,
    /// The lesson that it is in.
    pub lesson_id: Option<LessonId>,
    /// Its seat there, if it has one.
    pub seat: Option<Seat>,
    /// The version of its role, info and state.
    pub state_n: StateVersion,
    /// Its token's `info`, if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub info: Option<JsonObject>,
    /// Its state, if it has set one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<JsonObject>,
}

/// An agent over HTTP: its session id also under the names that lists of other services have.
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

/// A page of a roster, as the data of an ack has it.
#[derive(Clone, Debug, Serialize)]
pub struct RosterPage {
    /// `[AGENT, ...]`, encoded.
    pub agents: Box<RawValue>,
    /// The session after which the next page begins, where there is one.
    pub next: Option<SessionId>,
}

impl RosterPage {
    /// The page of at most `limit` of these agents, which ascend by their session. `shown` is how each is written.
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
