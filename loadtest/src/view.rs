//! A client's view of its classroom: which agents are there (PROTOCOL 2, "The view is whole"), and the state of each
//! (PROTOCOL 9).
//!
//! Invariant: the view has every session of the lists and pushes, except those whose left has come. The order of list
//! and pushes does not matter, because a session's id is never used again. Of two states the one with the higher
//! version counts. A roster that came over the connection itself is exact, because pushes wait for it.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Agents by session id.
pub type Agents = BTreeMap<i64, String>;

/// States by session id, each with its version. Agents that have not set a state are not in it.
pub type States = BTreeMap<i64, (i64, Value)>;

/// A list of agents.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Listed {
    /// The agents by session.
    pub agents: Agents,
    /// The agents' states by session.
    pub states: States,
}

impl Listed {
    /// Adds an agent of a list or a roster. Returns false if the value is not an agent.
    fn add(&mut self, agent: &Value) -> bool {
        let (Some(session), Some(id)) = (agent["session_id"].as_i64(), agent["agent_id"].as_str()) else {
            return false;
        };
        self.agents.insert(session, id.to_owned());
        if let Some(version) = agent["state_n"].as_i64().filter(|version| *version > 0) {
            self.states.insert(session, (version, agent["state"].clone()));
        }
        true
    }
}

const PAGE_LIMIT: Duration = Duration::from_secs(5);

/// A client's view of its classroom.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct View {
    agents: Agents,
    states: States,
    left: BTreeSet<i64>,
}

impl View {
    /// Adds a list that was read after connect_success.
    pub fn list(&mut self, listed: Listed) {
        listed.agents.into_iter().for_each(|(session, agent)| self.add(session, agent));
        listed.states.into_iter().for_each(|(session, (version, state))| self.set(session, version, state));
    }

    /// Reads a page of a roster that came over the connection. Of the sessions above `after`, up to `next` if more
    /// pages follow, exactly those of the page are there.
    ///
    /// # Errors
    /// Returns an error if `page` is not a page of a roster.
    pub fn read(&mut self, after: i64, page: &Value, next: Option<i64>) -> Result<(), String> {
        let mut listed = Listed::default();
        let agents = page.as_array().ok_or_else(|| format!("no page: {page}"))?;
        if let Some(other) = agents.iter().find(|agent| !listed.add(agent)) {
            return Err(format!("not an agent: {other}"));
        }
        let in_page = |session: &i64| *session > after && next.is_none_or(|next| *session <= next);
        self.agents.retain(|session, _| !in_page(session));
        self.states.retain(|session, _| !in_page(session));
        self.agents.extend(listed.agents);
        self.states.extend(listed.states);
        Ok(())
    }

    fn set(&mut self, session: i64, version: i64, state: Value) {
        let known = self.states.get(&session).map(|(version, _)| *version);
        if !self.left.contains(&session) && known.is_none_or(|known| known < version) {
            self.states.insert(session, (version, state));
        }
    }

    /// Adds an agent that is known to be in the classroom.
    pub fn add(&mut self, session: i64, agent: String) {
        if !self.left.contains(&session) {
            self.agents.insert(session, agent);
        }
    }

    /// Applies a push without its offset. A push that is not about an agent changes nothing.
    pub fn hear(&mut self, push: &Value) {
        let id = &push["id"];
        let Some(session) = id["sequence_id"].as_i64().filter(|_| id["entity_type"] == "agent") else { return };
        match (id["operation"].as_str(), push["payload"]["agent_id"].as_str()) {
            (Some("entered"), Some(agent)) => self.add(session, agent.to_owned()),
            (Some("updated"), Some(_)) => {
                let payload = &push["payload"];
                self.set(session, payload["state_n"].as_i64().unwrap_or_default(), payload["state"].clone());
            }
            (Some("left"), _) => {
                self.left.insert(session);
                self.agents.remove(&session);
                self.states.remove(&session);
            }
            _ => {}
        }
    }

    /// Compares the states in this view with `there`. Returns the differences in words, or `None`. `own` is the
    /// client's own session, whose updates it does not get.
    #[must_use]
    pub fn other_states(&self, there: &States, own: i64) -> Option<String> {
        let nothing = (0, Value::Null);
        let others = self.agents.keys().filter(|session| **session != own);
        let wrong = others.filter_map(|session| {
            let [seen, there] = [&self.states, there].map(|states| states.get(session).unwrap_or(&nothing));
            // After a failover of the database, the same state may have been pushed with a higher version.
            let right = seen.1 == there.1 && seen.0 >= there.0;
            (!right).then(|| format!("sees state {seen:?} of session {session}, which shows {there:?}"))
        });
        let wrong: Vec<String> = wrong.collect();
        (!wrong.is_empty()).then(|| wrong.join("; "))
    }

    /// Creates a copy of this view without these sessions.
    #[must_use]
    pub fn without(&self, sessions: &BTreeSet<i64>) -> Self {
        let mut other = self.clone();
        other.agents.retain(|session, _| !sessions.contains(session));
        other
    }

    /// Returns the agents in this view.
    #[must_use]
    pub fn agents(&self) -> &Agents {
        &self.agents
    }

    /// Compares this view with the agents that are there. Returns the differences in words, or `None`.
    #[must_use]
    pub fn difference(&self, there: &Agents) -> Option<String> {
        let lacking = |of: &Agents, other: &Agents| -> Vec<String> {
            let lacks = of.iter().filter(|(session, agent)| other.get(session) != Some(agent));
            lacks.map(|(session, agent)| format!("{agent} in session {session}")).collect()
        };
        let (missing, ghosts) = (lacking(there, &self.agents), lacking(&self.agents, there));
        let says = [("does not see", missing), ("sees without reason", ghosts)];
        let says = says.into_iter().filter(|(_, agents)| !agents.is_empty());
        let says: Vec<String> = says.map(|(how, agents)| format!("{how} {}", agents.join(", "))).collect();
        (!says.is_empty()).then(|| says.join("; "))
    }
}

/// Reads the whole list of a classroom's agents, page by page: from a node's admin address, or with a client's token
/// from a node's address for clients.
///
/// # Errors
/// Returns an error if a page does not come, or is not a list of agents.
pub async fn read_agents(address: SocketAddr, token: Option<&str>, classroom: &str) -> io::Result<Listed> {
    let mut listed = Listed::default();
    loop {
        let after = listed.agents.last_key_value().map_or(0, |(session, _)| *session);
        let path = format!("/api/v1/classrooms/{classroom}/agents?sequence_id={after}");
        let page = timeout(PAGE_LIMIT, get(address, token, &path)).await.map_err(|_| io::ErrorKind::TimedOut)??;
        let page: Vec<Value> = serde_json::from_slice(&page)?;
        if page.is_empty() {
            return Ok(listed);
        }
        if let Some(other) = page.iter().find(|agent| !listed.add(agent)) {
            return Err(io::Error::other(format!("not an agent: {other}")));
        }
    }
}

/// Returns the body of an answer, whose status must be 200.
async fn get(address: SocketAddr, token: Option<&str>, path: &str) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(address).await?;
    let token = token.map(|token| format!("Authorization: Bearer {token}\r\n")).unwrap_or_default();
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\n{token}Connection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    let end = memchr::memmem::find(&answer, b"\r\n\r\n").ok_or(io::ErrorKind::UnexpectedEof)?;
    let body = answer.split_off(end + 4);
    let head = String::from_utf8_lossy(&answer);
    if head.starts_with("HTTP/1.1 200 ") {
        Ok(body)
    } else {
        Err(io::Error::other(head.lines().next().unwrap_or_default().to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn push(operation: &str, session: i64) -> Value {
        json!({
            "id": {"entity_type": "agent", "operation": operation, "sequence_id": session},
            "payload": {"agent_id": format!("agent {session}")},
        })
    }

    fn agents(sessions: &[i64]) -> Agents {
        sessions.iter().map(|session| (*session, format!("agent {session}"))).collect()
    }

    fn listed(sessions: &[i64]) -> Listed {
        Listed { agents: agents(sessions), states: States::new() }
    }

    fn updated(session: i64, version: i64) -> Value {
        let mut push = push("updated", session);
        push["payload"]["state_n"] = json!(version);
        push["payload"]["state"] = json!({"n": version});
        push
    }

    fn agent(session: i64, version: i64) -> Value {
        json!({
            "session_id": session, "agent_id": format!("agent {session}"), "state_n": version, "state": {"n": version},
        })
    }

    #[test]
    fn of_two_states_the_later_one_counts() {
        let states = |versions: &[(i64, i64)]| -> States {
            versions.iter().map(|(session, version)| (*session, (*version, json!({"n": version})))).collect()
        };
        let mut view = View::default();
        view.list(Listed { agents: agents(&[1, 2, 3]), states: states(&[(1, 5), (3, 1)]) });
        [updated(1, 4), updated(2, 6), updated(2, 3)].iter().for_each(|push| view.hear(push));
        assert_eq!(view.other_states(&states(&[(1, 5), (2, 6)]), 3), None);
        view.list(Listed { agents: agents(&[2]), states: states(&[(2, 7)]) });
        assert!(view.other_states(&states(&[(1, 5), (2, 6)]), 3).is_some());
        view.hear(&push("left", 1));
        view.hear(&updated(1, 9));
        assert_eq!(view.other_states(&states(&[(2, 7)]), 3), None);
    }

    #[test]
    fn a_roster_says_exactly_who_is_there() {
        let mut view = View::default();
        view.list(listed(&[1, 2, 3, 4]));
        view.read(1, &json!([agent(3, 2)]), Some(3)).expect("a page");
        assert_eq!(view.difference(&agents(&[1, 3, 4])), None);
        view.read(3, &json!([agent(5, 0)]), None).expect("a page");
        assert_eq!(view.difference(&agents(&[1, 3, 5])), None);
        assert!(view.read(0, &json!([{"id": 1}]), None).is_err() && view.read(0, &json!(null), None).is_err());
    }

    #[test]
    fn list_and_pushes_are_merged_in_whatever_order_they_come() {
        let pushes = [push("entered", 1), push("left", 2), push("entered", 3), push("entered", 1)];
        let (mut before, mut after) = (View::default(), View::default());
        before.list(listed(&[1, 2]));
        pushes.iter().for_each(|push| before.hear(push));
        pushes.iter().for_each(|push| after.hear(push));
        after.list(listed(&[1, 2]));
        assert_eq!(before, after);
        assert_eq!(before.difference(&agents(&[1, 3])), None);
    }

    #[test]
    fn who_is_missing_who_is_too_much_and_who_is_somebody_else_is_told() {
        let mut view = View::default();
        view.list(listed(&[1, 2]));
        let told = view.difference(&agents(&[2, 3])).unwrap_or_default();
        assert_eq!(told, "does not see agent 3 in session 3; sees without reason agent 1 in session 1");
        let other = Agents::from([(1, "agent 1".to_owned()), (2, "agent 9".to_owned())]);
        assert!(view.difference(&other).is_some());
    }

    #[test]
    fn other_pushes_change_nothing() {
        let mut view = View::default();
        view.hear(&json!({"note": 1}));
        view.hear(&json!({"id": {"entity_type": "board", "operation": "entered", "sequence_id": 7}, "payload": {}}));
        assert_eq!(view, View::default());
    }
}
