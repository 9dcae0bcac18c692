//! An operator that ends sessions during a storm, of one agent or of all agents in a lesson, and what must follow from
//! that.

use std::collections::BTreeSet;
use std::io;
use std::thread;

use serde_json::{Value, json};

use rollcall_loadtest::admin;

use super::agent::Stage;
use super::journal::Connection;
use super::ledger::Evidence;
use super::random::Random;
use super::setting::STORM;

/// The number of calls in one seed.
const CALLS: usize = 3;
/// The operator has random numbers of its own, so that the faults of a seed stay the same.
const OWN_NUMBERS: u64 = 0x6f70_6572_6174_6f72;
/// The reason in the history and in `Left-Reason`, and the session error's type.
const KICKED: &str = "kicked";
/// The code of the close frame for a kicked client.
const KICKED_CODE: u16 = 3508;

/// What the operator did in a seed.
#[derive(Debug, Default, Clone)]
pub(super) struct Kicks {
    /// The sessions that an answer named as ended.
    pub(super) ended: BTreeSet<i64>,
    /// The agents whose sessions the operator asked to end, also if no answer came because the node was killed or had
    /// no database.
    pub(super) asked: BTreeSet<String>,
}

/// An agent in a classroom.
struct Member {
    session: i64,
    agent: String,
    lesson: Option<String>,
}

/// Makes a seed's calls, each to a node that may be down.
pub(super) fn act(stage: &Stage) -> io::Result<Kicks> {
    let mut random = Random::new(stage.seed ^ OWN_NUMBERS);
    let mut kicks = Kicks::default();
    for _ in 0..CALLS {
        thread::sleep(random.millis(0..STORM / CALLS));
        let classroom = &stage.classrooms[random.within(0..stage.classrooms.len())];
        let node = stage.admins[random.within(0..stage.admins.len())];
        let (one, number) = (random.percent(50), random.within(0..1000));
        let path = format!("/api/v1/classrooms/{classroom}/agents");
        // Without a node's list no agent can be chosen.
        let Ok((200, there)) = admin::get(node, &path) else { continue };
        let there = members(&serde_json::from_str(&there)?);
        let Some(chosen) = there.get(number % there.len().max(1)) else { continue };
        let calls: Vec<(&Member, Value)> = match &chosen.lesson {
            Some(lesson) if !one => {
                let inside = there.iter().filter(|agent| agent.lesson.as_ref() == Some(lesson));
                inside.map(|agent| (agent, json!({"session_id": agent.session}))).collect()
            }
            _ => vec![(chosen, json!({"agent_id": chosen.agent, "classroom_id": classroom}))],
        };
        for (agent, call) in calls {
            kicks.asked.insert(agent.agent.clone());
            let Ok((200, answer)) = admin::post(node, "/api/v1/disconnect", &call) else { continue };
            let answer: Value = serde_json::from_str(&answer)?;
            let ended = answer["ended"].as_array().into_iter().flatten();
            kicks.ended.extend(ended.filter_map(|ended| ended["session_id"].as_i64()));
        }
    }
    Ok(kicks)
}

fn members(list: &Value) -> Vec<Member> {
    let agent = |of: &Value| {
        let lesson = of["lesson_id"].as_str().map(str::to_owned);
        Some(Member { session: of["session_id"].as_i64()?, agent: of["agent_id"].as_str()?.to_owned(), lesson })
    };
    list.as_array().into_iter().flatten().filter_map(agent).collect()
}

/// Returns the broken rules. The rules are: a session that an answer named has ended as kicked, in the history and in
/// the stream. The session's client was told that it was kicked, or was told nothing. No other client was told so.
pub(super) fn faults(kicks: &Kicks, evidence: &Evidence) -> Vec<String> {
    let named = |session: &i64| kicks.ended.contains(session) && !evidence.lost.contains(session);
    let mut faults = Vec::new();
    for past in evidence.history.iter().filter(|past| named(&past.session) && past.reason != KICKED) {
        faults.push(format!("session {} was ended by an operator, and its history says {}", past.session, past.reason));
    }
    for stored in evidence.stream.iter().flat_map(|stream| &stream.messages) {
        let Some((session, false)) = stored.session.filter(|(session, _)| named(session)) else { continue };
        if stored.reason.as_deref() != Some(KICKED) {
            let (offset, reason) = (stored.offset, &stored.reason);
            faults.push(format!("session {session} was ended by an operator, and left at {offset} says {reason:?}"));
        }
    }
    for connection in &evidence.connections {
        let Connection { agent, node, end, code, success, .. } = connection;
        let told = connection.was_kicked();
        if told && !kicks.asked.contains(agent) {
            faults.push(format!("{agent} was told on node {node} that it was kicked, and nobody asked for that"));
        }
        if told && code.is_some_and(|code| code != KICKED_CODE) {
            faults.push(format!("{agent} was kicked on node {node} with another code: {end}"));
        }
        let of_named = success.as_ref().is_some_and(|success| named(&success.session));
        if of_named && connection.ended_permanently() && !told {
            faults.push(format!("{agent} was kicked on node {node}, and was told otherwise: {end}"));
        }
    }
    faults
}

#[cfg(test)]
mod tests;
