//! Who is in a classroom, as a client knows it (PROTOCOL 2, "The view is whole").
//!
//! Invariant: what it was listed or told of is in it, but for the sessions whose left it heard, in whatever order list
//! and pushes come: a session's id is never used again.

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

/// The longest page that a gateway gives.
const PAGE: usize = 1000;
const PAGE_LIMIT: Duration = Duration::from_secs(5);

/// A client's view of its classroom.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct View {
    agents: Agents,
    left: BTreeSet<i64>,
}

impl View {
    /// Adds a list that was read after the connection's success.
    pub fn list(&mut self, agents: Agents) {
        agents.into_iter().for_each(|(session, agent)| self.add(session, agent));
    }

    /// Adds an agent that is known to be there.
    pub fn add(&mut self, session: i64, agent: String) {
        if !self.left.contains(&session) {
            self.agents.insert(session, agent);
        }
    }

    /// Follows a push, without its offset; those that are not about an agent change nothing.
    pub fn hear(&mut self, push: &Value) {
        let id = &push["id"];
        let Some(session) = id["sequence_id"].as_i64().filter(|_| id["entity_type"] == "agent") else { return };
        match (id["operation"].as_str(), push["payload"]["agent_id"].as_str()) {
            (Some("entered"), Some(agent)) => self.add(session, agent.to_owned()),
            (Some("left"), _) => {
                self.left.insert(session);
                self.agents.remove(&session);
            }
            _ => {}
        }
    }

    /// Who is there.
    #[must_use]
    pub fn agents(&self) -> &Agents {
        &self.agents
    }

    /// How it differs from who is there, in words; none where it does not.
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

/// Reads the whole list of a classroom's agents from a node's admin address, page by page.
///
/// # Errors
/// When a page does not come, or is no list of agents.
pub async fn read_agents(admin: SocketAddr, classroom: &str) -> io::Result<Agents> {
    let mut agents = Agents::new();
    loop {
        let after = agents.last_key_value().map_or(0, |(session, _)| *session);
        let path = format!("/api/v1/classrooms/{classroom}/agents?sequence_id={after}&limit={PAGE}");
        let page = timeout(PAGE_LIMIT, get(admin, &path)).await.map_err(|_| io::ErrorKind::TimedOut)??;
        let page: Vec<Value> = serde_json::from_slice(&page)?;
        let length = page.len();
        for agent in page {
            match (agent["id"].as_i64(), agent["agent_id"].as_str()) {
                (Some(session), Some(id)) => agents.insert(session, id.to_owned()),
                _ => return Err(io::Error::other(format!("not an agent: {agent}"))),
            };
        }
        if length < PAGE {
            return Ok(agents);
        }
    }
}

/// The body of an answer with status 200.
async fn get(address: SocketAddr, path: &str) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(address).await?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
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

    #[test]
    fn list_and_pushes_are_merged_in_whatever_order_they_come() {
        let pushes = [push("entered", 1), push("left", 2), push("entered", 3), push("entered", 1)];
        let (mut before, mut after) = (View::default(), View::default());
        before.list(agents(&[1, 2]));
        pushes.iter().for_each(|push| before.hear(push));
        pushes.iter().for_each(|push| after.hear(push));
        after.list(agents(&[1, 2]));
        assert_eq!(before, after);
        assert_eq!(before.difference(&agents(&[1, 3])), None);
    }

    #[test]
    fn who_is_missing_who_is_too_much_and_who_is_somebody_else_is_told() {
        let mut view = View::default();
        view.list(agents(&[1, 2]));
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
