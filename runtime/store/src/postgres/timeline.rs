//! Finds out to which history of the database a connection leads. After a failover to a replica, or in a backup that
//! was put back, the last commits are missing, although they were answered.
//!
//! Invariant: no connection writes before its server was compared with what the database stores about itself and with
//! what this process has seen. The first process that finds a difference raises all ids and stores a new incarnation,
//! in one transaction under a lock. All other processes find the new incarnation. A connection to an incarnation other
//! than the latest is not used again.
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use parking_lot::Mutex;
use rollcall_schema::SessionId;
use tokio::sync::watch;
use tokio_postgres::{Client, Error, error::SqlState, types::Type};
use tracing::warn;
use uuid::Uuid;

/// A copy of the server's files keeps the identifier, a promotion changes the timeline, and a dump that is loaded
/// elsewhere changes the identifier. Any role may read both, unless that right was revoked.
const PARTS: [&str; 2] = [
    "select (pg_control_system()).system_identifier::text",
    "select substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8)",
];
/// The value of a part that the role may not read.
const UNKNOWN: &str = "?";

const STORED: &str = "select timeline, incarnation, last_session_id() from installation";
const LOCK: &str = "select timeline, incarnation, last_session_id() from installation for update";
const ADOPT: &str = "update installation set timeline = $1";
const RAISE: &str = "select raise_ids($1)";
const CHANGE: &str = "update installation set timeline = $1, incarnation = gen_random_uuid(), \
    doubtful_through = greatest(doubtful_through, $2) returning incarnation";

/// What this process knows of the database's history.
#[derive(Default)]
pub(super) struct Timeline {
    /// The incarnation that the latest connection found.
    known: watch::Sender<Option<Uuid>>,
    /// The highest session id that this process got. If a sequence is below it, commits were lost.
    seen: AtomicI64,
    warned: AtomicBool,
    /// The timeline of the server's log that the latest connection found.
    wal: Mutex<Option<String>>,
}

/// What the database stores about itself.
struct Stored {
    timeline: Option<String>,
    incarnation: Uuid,
    last_session: i64,
}

impl Stored {
    /// Returns whether this is the history that the connection leads to, and has all sessions through `seen`.
    fn agrees(&self, here: &str, seen: i64) -> bool {
        self.timeline.as_deref() == Some(here) && self.last_session >= seen
    }
}

impl Timeline {
    /// Returns the incarnation that the latest connection found, or `None` before the tables are made.
    pub(super) fn known(&self) -> watch::Receiver<Option<Uuid>> {
        self.known.subscribe()
    }

    /// Returns the timeline of the server's log, if the role may read it.
    pub(super) fn wal(&self) -> Option<String> {
        self.wal.lock().clone()
    }

    /// Returns whether a connection that found this incarnation may still be used.
    pub(super) fn is_current(&self, incarnation: Option<Uuid>) -> bool {
        incarnation.is_some() && *self.known.borrow() == incarnation
    }

    /// Records that a session has this id.
    pub(super) fn saw(&self, SessionId(session): SessionId) {
        self.seen.fetch_max(session, Ordering::Relaxed);
    }

    /// Compares a new connection with what is known. If it is the first to find another history, it raises the ids.
    /// Returns `None` if there are no tables yet; such a connection may only be used to make them.
    pub(super) async fn compare(&self, client: &Client) -> Result<Option<Uuid>, Error> {
        let here = self.here(client).await?;
        let seen = self.seen();
        let stored = match stored(client, STORED).await {
            Ok(stored) => stored,
            Err(error) if is_missing(&error) => return Ok(None),
            Err(error) => return Err(error),
        };
        let incarnation =
            if stored.agrees(&here, seen) { stored.incarnation } else { self.resolve(client, &here).await? };
        let wal = here.rsplit_once('/').map(|(_, wal)| wal.to_owned()).filter(|wal| wal != UNKNOWN);
        *self.wal.lock() = wal;
        self.known.send_if_modified(|known| known.replace(incarnation) != Some(incarnation));
        Ok(Some(incarnation))
    }

    /// Returns the last session that this process knows. It is called before the database is asked for its last
    /// session. A session that is opened meanwhile has a higher id than the answer, and would be taken for a loss.
    fn seen(&self) -> i64 {
        self.seen.load(Ordering::Relaxed)
    }

    /// Returns the history of the database to which this connection leads.
    async fn here(&self, client: &Client) -> Result<String, Error> {
        let mut parts = Vec::with_capacity(PARTS.len());
        for sql in PARTS {
            parts.push(match client.query_typed_one(sql, &[]).await.and_then(|row| row.try_get(0)) {
                Ok(part) => part,
                Err(error) if is_forbidden(&error) => {
                    if !self.warned.swap(true, Ordering::Relaxed) {
                        warn!(%error, asked = sql, "a failover of the database is not noticed by this: grant the right");
                    }
                    UNKNOWN.to_owned()
                }
                Err(error) => return Err(error),
            });
        }
        Ok(parts.join("/"))
    }

    async fn resolve(&self, client: &Client, here: &str) -> Result<Uuid, Error> {
        client.batch_execute("begin").await?;
        let seen = self.seen();
        let stored = stored(client, LOCK).await?;
        let incarnation = if stored.agrees(here, seen) {
            stored.incarnation
        } else if stored.timeline.is_none() {
            client.execute_typed(ADOPT, &[(&here, Type::TEXT)]).await?;
            stored.incarnation
        } else {
            let highest = stored.last_session.max(self.seen());
            warn!(
                before = stored.timeline,
                now = here,
                "the database has another history: its last commits may be lost; ids are raised, and sessions checked"
            );
            client.query_typed(RAISE, &[(&highest, Type::INT8)]).await?;
            client.query_typed_one(CHANGE, &[(&here, Type::TEXT), (&highest, Type::INT8)]).await?.try_get(0)?
        };
        client.batch_execute("commit").await?;
        Ok(incarnation)
    }
}

async fn stored(client: &Client, sql: &str) -> Result<Stored, Error> {
    let row = client.query_typed_one(sql, &[]).await?;
    Ok(Stored { timeline: row.try_get(0)?, incarnation: row.try_get(1)?, last_session: row.try_get(2)? })
}

/// Returns whether an error says that the tables are not made yet.
fn is_missing(error: &Error) -> bool {
    let missing = [SqlState::UNDEFINED_TABLE, SqlState::UNDEFINED_COLUMN, SqlState::UNDEFINED_FUNCTION];
    error.code().is_some_and(|code| missing.contains(code))
}

fn is_forbidden(error: &Error) -> bool {
    let forbidden = [SqlState::INSUFFICIENT_PRIVILEGE, SqlState::UNDEFINED_FUNCTION, SqlState::FEATURE_NOT_SUPPORTED];
    error.code().is_some_and(|code| forbidden.contains(code))
}
