//! The database's server, which may fail over to one that lacks the last commits.
//!
//! Invariant: what was lost is known: each session of which the old server had a write that the new one lacks.

use std::collections::BTreeSet;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::thread;
use std::time::Duration;

use rollcall_loadtest::servers::{Postgres, PostgresOptions, Standby, psql};

use super::cluster::Lines;
use super::rest;

/// All that a database knows of sessions, a line each that begins with the session's id.
const SESSIONS: &str = "select id || ' ' || sid || ' ' || coalesce(lesson_id, '') from agent_session \
    union all select id || ' is over' from agent_session_history \
    union all select session_id || ' waits ' || operation from outbox";

/// The connections and lessons of which a field in Redis is, or is to be removed.
const FIELDS: &str = "select sid || ' ' || lesson_id from agent_session where lesson_id is not null \
    union select sid || ' ' || lesson_before from agent_session where lesson_before is not null \
    union select sid || ' ' || lesson_id from stale_field";

/// Statements that run on although their client has disconnected.
const BUSY: &str = "select query from pg_stat_activity where datname = current_database() and state <> 'idle' \
    and backend_type = 'client backend' and pid <> pg_backend_pid()";
const LAST_STATEMENTS: Duration = Duration::from_secs(10);

/// What a failover took.
#[derive(Debug, Default)]
pub(super) struct Loss {
    /// Sessions of which something is lost.
    pub(super) sessions: BTreeSet<i64>,
    /// Sessions of which everything is lost.
    pub(super) gone: BTreeSet<i64>,
    /// Connections and lessons of which no row names the field in Redis any more, `sid lesson_id`.
    pub(super) fields: BTreeSet<String>,
    /// The highest session before.
    pub(super) doubtful: i64,
}

/// See the module.
pub(super) struct Primary {
    server: Postgres,
    /// The standby that took over.
    standby: Option<Standby>,
    database: String,
}

impl Primary {
    pub(super) fn start() -> io::Result<Self> {
        // The machine does not lose power: what a killed process wrote stays.
        let server = Postgres::start_with(PostgresOptions { fsync: false, ..PostgresOptions::default() })?;
        let database = server.create_database()?;
        Ok(Self { server, standby: None, database })
    }

    /// The URL of the database, on whichever server it is.
    pub(super) fn database(&self) -> &str {
        &self.database
    }

    /// The server that was there first.
    pub(super) fn server(&mut self) -> &mut Postgres {
        &mut self.server
    }

    pub(super) fn port(&self) -> u16 {
        self.server.port()
    }

    pub(super) fn has_failed_over(&self) -> bool {
        self.standby.is_some()
    }

    /// Kills the server, and promotes a standby that lacks the commits of this long.
    pub(super) fn fail_over(&mut self, lines: &[Lines], lacks: Duration) -> io::Result<Loss> {
        let standby = Standby::of(self.port())?;
        standby.catch_up(&self.database)?;
        standby.stop_receiving()?;
        thread::sleep(lacks);
        // From before the read until the server's end nothing more is committed.
        lines.iter().for_each(|line| line.postgres.close());
        let busy = rest::until_empty(LAST_STATEMENTS, || {
            psql(&self.database, BUSY).map(|rows| rows.lines().map(str::to_owned).collect())
        })?;
        if !busy.is_empty() {
            return Err(io::Error::other(format!("the database still works on {busy:?}")));
        }
        let (before, fields_before) = (psql(&self.database, SESSIONS)?, psql(&self.database, FIELDS)?);
        self.server.kill()?;
        standby.promote()?;
        let address = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        self.database = self.database.replace(&address(self.port()).to_string(), &address(standby.port()).to_string());
        let (after, fields_after) = (psql(&self.database, SESSIONS)?, psql(&self.database, FIELDS)?);
        for line in lines {
            line.postgres.lead_to(address(standby.port()));
            line.postgres.clear();
        }
        self.standby = Some(standby);
        let [before, after, fields_before, fields_after] =
            [&before, &after, &fields_before, &fields_after].map(|rows| rows.lines().collect::<BTreeSet<_>>());
        let session = |row: &&str| row.split(' ').next()?.parse().ok();
        let sessions = before.symmetric_difference(&after).filter_map(session).collect();
        let left: BTreeSet<i64> = after.iter().filter_map(session).collect();
        let gone = before.iter().filter_map(session).filter(|session| !left.contains(session)).collect();
        let fields = fields_before.difference(&fields_after).map(|field| (*field).to_owned()).collect();
        let doubtful = before.iter().filter_map(session).max().unwrap_or_default();
        Ok(Loss { sessions, gone, fields, doubtful })
    }
}
