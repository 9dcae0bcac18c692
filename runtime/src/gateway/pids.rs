//! The pid, with which a client of Socket.IO resumes after a break (PROTOCOL 11, Recovery).
//!
//! Invariant: only nodes of this installation make a pid, and a pid is valid for one agent in one namespace. A session
//! that the client ended with DISCONNECT is not resumed on this node, even if the client comes back at once.
use std::{collections::HashSet, time::Duration};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use parking_lot::Mutex;
use ring::hmac::{self, HMAC_SHA256, Key};
use rollcall_schema::{AgentId, Offset, ResumeId, SessionId, Sid, socketio};
use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq;
use uuid::Uuid;

use rollcall_bus::Position;

/// How many bytes of a signature are in a pid.
const SIGNATURE: usize = 16;

/// How many ids of one generation are remembered as ended. This is many more than end before SQL records an end.
const ENDED: usize = 1 << 10;

/// Makes and reads pids. Every node of an installation has the same key.
pub struct Pids {
    key: Key,
    installation: Uuid,
    /// How long after the end of its session a client may resume.
    pub(super) window: Duration,
    /// The ids that clients ended recently with DISCONNECT, because SQL may not have them yet: the latest generation,
    /// and the generation before.
    ended: Mutex<[HashSet<ResumeId>; 2]>,
}

/// The content of a pid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Pid {
    /// The agent that the pid is valid for.
    pub agent: AgentId,
    /// The position of the stream when the client first connected.
    pub start: Position,
    /// The id under which the session is found.
    pub resume_id: ResumeId,
}

/// The session, the sid of the first connection, the agent, the namespace, the epoch, the offset and the id.
#[derive(Serialize, Deserialize)]
struct Content<'a>(Option<i64>, &'a str, &'a str, &'a str, &'a str, u64, i32);

impl Pids {
    /// Creates pids with the key and the id of the installation.
    #[must_use]
    pub fn new(key: &[u8], installation: Uuid, window: Duration) -> Self {
        Self { key: Key::new(HMAC_SHA256, key), installation, window, ended: Mutex::default() }
    }

    /// Returns the pid of a connection in a namespace. No two connections get the same pid.
    pub(super) fn sign(&self, pid: &Pid, namespace: &str, session: Option<SessionId>, sid: Sid) -> String {
        let Pid { agent, start, resume_id } = pid;
        let (session, sid) = (session.map(|session| session.0), sid.to_string());
        let content =
            Content(session, &sid, agent.as_str(), namespace, &start.epoch, start.offset.0, resume_id.0.get());
        let mut bytes = serde_json::to_vec(&content).expect("texts and numbers can be written as JSON");
        let signature = self.signature(&bytes);
        bytes.extend_from_slice(&signature.as_ref()[..SIGNATURE]);
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// Returns the content of a pid, or `None` if the pid was not made by this installation for this namespace.
    pub(super) fn read(&self, text: &str, namespace: &str) -> Option<Pid> {
        let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
        let (content, signature) = bytes.split_at_checked(bytes.len().checked_sub(SIGNATURE)?)?;
        if !bool::from(self.signature(content).as_ref()[..SIGNATURE].ct_eq(signature)) {
            return None;
        }
        let Content(_, _, agent, of, epoch, offset, id) = serde_json::from_slice(content).ok()?;
        let start = Position { epoch: epoch.to_owned(), offset: Offset(offset) };
        let pid = Pid { agent: AgentId::parse(agent).ok()?, start, resume_id: ResumeId(id.try_into().ok()?) };
        (of == namespace).then_some(pid)
    }

    fn signature(&self, content: &[u8]) -> hmac::Tag {
        let mut context = hmac::Context::with_key(&self.key);
        context.update(self.installation.as_bytes());
        context.update(content);
        context.sign()
    }

    /// Records that the client said DISCONNECT.
    pub(super) fn end(&self, id: ResumeId) {
        let [latest, before] = &mut *self.ended.lock();
        if latest.len() == ENDED {
            *before = std::mem::take(latest);
        }
        latest.insert(id);
    }

    /// Returns whether the client said DISCONNECT recently.
    pub(super) fn has_ended(&self, id: ResumeId) -> bool {
        self.ended.lock().iter().any(|ended| ended.contains(&id))
    }
}

impl Pid {
    /// Returns the position after which the client resumes: the position of its last event, or the start if it has
    /// received no event since then. An offset of another stream does not count, because the client's library keeps it
    /// from an earlier connection.
    pub(super) fn after(&self, shown: Option<&str>) -> Position {
        let shown = shown.and_then(|text| socketio::offset_in(text, &self.start.epoch));
        Position { epoch: self.start.epoch.clone(), offset: self.start.offset.max(shown.unwrap_or(Offset(0))) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pid() -> Pid {
        let start = Position { epoch: "2026-11-28T01:02:03Z".to_owned(), offset: Offset(40) };
        let agent = AgentId::parse("web.alice.example.org").expect("an agent");
        Pid { agent, start, resume_id: ResumeId::random() }
    }

    #[test]
    fn a_pid_is_read_by_nodes_of_its_installation_for_its_namespace_only() {
        let (key, installation) = ([7; 32], Uuid::from_u128(1));
        let pids = Pids::new(&key, installation, Duration::ZERO);
        let (pid, sid) = (pid(), Sid::random());
        let text = pids.sign(&pid, "/teachers", Some(SessionId(3)), sid);
        let another = Pids::new(&key, installation, Duration::ZERO);
        assert_eq!(another.read(&text, "/teachers"), Some(pid.clone()));
        assert_eq!(another.read(&text, "/"), None);
        assert_eq!(Pids::new(&[8; 32], installation, Duration::ZERO).read(&text, "/teachers"), None);
        assert_eq!(Pids::new(&key, Uuid::from_u128(2), Duration::ZERO).read(&text, "/teachers"), None);
        for wrong in ["", "x", &text[1..], &text[..text.len() - 1], &format!("{text}A")] {
            assert_eq!(pids.read(wrong, "/teachers"), None, "{wrong}");
        }
        assert_ne!(pids.sign(&pid, "/teachers", Some(SessionId(3)), Sid::random()), text);
    }

    #[test]
    fn a_client_goes_on_after_what_it_has_of_this_stream() {
        let pid = pid();
        let after = |shown| pid.after(shown).offset.0;
        assert_eq!(after(Some("2026-11-28T01:02:03Z-77")), 77);
        for start in [None, Some("2026-11-28T01:02:03Z-7"), Some("other-77"), Some("77"), Some("-"), Some("é")] {
            assert_eq!(after(start), 40, "{start:?}");
        }
    }

    #[test]
    fn ends_are_known_for_a_while_and_not_too_many() {
        let pids = Pids::new(&[7; 32], Uuid::nil(), Duration::ZERO);
        let id = |n: usize| ResumeId(i32::try_from(n + 1).expect("small").try_into().expect("not zero"));
        (0..3 * ENDED).for_each(|n| pids.end(id(n)));
        assert!(pids.has_ended(id(3 * ENDED - 1)) && pids.has_ended(id(2 * ENDED - 1)) && !pids.has_ended(id(0)));
    }
}
