//! The database's server, which may fail over to a server that lacks the last commits, or to a synchronous standby,
//! which lacks none.
//!
//! Invariant: the sessions that lost a write are known: the old server had a row of theirs that the new one lacks.

use std::collections::BTreeSet;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::thread;
use std::time::Duration;

use rollcall_loadtest::servers::{Authority, Postgres, PostgresOptions, Standby, StandbyOptions, psql};
use rollcall_loadtest::until_empty;

use super::lines::Lines;

/// Everything that a database knows of sessions. Each line begins with the session's id.
const SESSIONS: &str = "select id || ' ' || sid || ' ' || coalesce(lesson_id, '') from agent_session \
    union all select id || ' is over' from agent_session_history \
    union all select session_id || ' waits ' || operation from outbox";

/// The connections and lessons that have a field in Redis, or whose field is to be removed.
const FIELDS: &str = "select sid || ' ' || lesson_id from agent_session where lesson_id is not null \
    union select sid || ' ' || lesson_before from agent_session where lesson_before is not null \
    union select sid || ' ' || lesson_id from stale_field";

/// Statements that still run although their client has disconnected.
const BUSY: &str = "select query from pg_stat_activity where datname = current_database() and state <> 'idle' \
    and backend_type = 'client backend' and pid <> pg_backend_pid()";
const LAST_STATEMENTS: Duration = Duration::from_secs(10);

/// The servers with a synchronous standby require TLS of everybody.
const RULES: &str = "hostssl all postgres all trust\nhostssl replication postgres all trust\n";
/// How soon a standby connects again to a primary that was killed, which commits nothing until then.
const RECONNECT_EVERY: &str = "100ms";

/// What a failover has lost.
#[derive(Debug, Default)]
pub(super) struct Loss {
    /// Sessions of which some rows were lost.
    pub(super) sessions: BTreeSet<i64>,
    /// Sessions of which all rows were lost.
    pub(super) gone: BTreeSet<i64>,
    /// Connections and lessons, as `sid lesson_id`, whose field in Redis no row names any more.
    pub(super) fields: BTreeSet<String>,
    /// The highest session id before the failover.
    pub(super) doubtful: i64,
}

/// The server of the database, and the standby after a failover.
pub(super) struct Primary {
    server: Postgres,
    /// The standby of a synchronous replication, or the one that took over.
    standby: Option<Standby>,
    has_failed_over: bool,
    /// The authority of the certificates of a synchronous replication.
    authority: Option<Authority>,
    database: String,
}

impl Primary {
    pub(super) fn start() -> io::Result<Self> {
        // The machine does not lose power, so what a killed process wrote stays.
        let server = Postgres::start_with(PostgresOptions { fsync: false, ..PostgresOptions::default() })?;
        let database = server.create_database()?;
        Ok(Self { server, standby: None, has_failed_over: false, authority: None, database })
    }

    /// Starts a server that speaks only TLS, and that commits nothing without its standby.
    pub(super) fn start_with_standby() -> io::Result<Self> {
        let authority = Authority::new()?;
        let certificate = authority.issue(&["127.0.0.1"])?;
        let options = || {
            let mut options = PostgresOptions::with_tls(&authority, &certificate, RULES)?;
            options.settings.push(("wal_retrieve_retry_interval".to_owned(), RECONNECT_EVERY.to_owned()));
            Ok::<_, io::Error>(options)
        };
        let server = Postgres::start_with(options()?)?;
        let (database, trusted) = (server.create_database()?, authority.certificate());
        let database = format!("{database}?sslmode=verify-full&sslrootcert={}", trusted.display());
        let standby = Standby::start_with(StandbyOptions { primary: server.port(), server: options()? })?;
        psql(&server.url(), "alter system set synchronous_standby_names = '*'")?;
        psql(&server.url(), "select pg_reload_conf()")?;
        Ok(Self { server, standby: Some(standby), has_failed_over: false, authority: Some(authority), database })
    }

    /// Returns the URL of the database on the server that is the primary.
    pub(super) fn database(&self) -> &str {
        &self.database
    }

    /// Returns the first server.
    pub(super) fn server(&mut self) -> &mut Postgres {
        &mut self.server
    }

    pub(super) fn port(&self) -> u16 {
        self.server.port()
    }

    fn is_synchronous(&self) -> bool {
        self.authority.is_some()
    }

    pub(super) fn has_failed_over(&self) -> bool {
        self.has_failed_over
    }

    /// Kills the server, and promotes the synchronous standby. If there is none, a standby that lacks the commits of
    /// the last `lacks` is promoted.
    pub(super) fn fail_over(&mut self, lines: &[Lines], lacks: Duration) -> io::Result<Loss> {
        let standby = match self.standby.take() {
            Some(synchronous) => synchronous,
            None => {
                let standby = Standby::of(self.port())?;
                standby.catch_up(&self.database)?;
                standby.stop_receiving()?;
                thread::sleep(lacks);
                standby
            }
        };
        // The wires are closed, so nothing is committed between this read and the server's end.
        lines.iter().for_each(|line| line.postgres.close());
        let busy = until_empty(LAST_STATEMENTS, || {
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
        (self.standby, self.has_failed_over) = (Some(standby), true);
        let [before, after, fields_before, fields_after] =
            [&before, &after, &fields_before, &fields_after].map(|rows| rows.lines().collect::<BTreeSet<_>>());
        if self.is_synchronous() {
            let lost: Vec<_> = before.difference(&after).chain(fields_before.difference(&fields_after)).collect();
            let why = || io::Error::other(format!("the synchronous standby lacks {lost:?}"));
            return if lost.is_empty() { Ok(Loss::default()) } else { Err(why()) };
        }
        let session = |row: &&str| row.split(' ').next()?.parse().ok();
        let sessions = before.symmetric_difference(&after).filter_map(session).collect();
        let left: BTreeSet<i64> = after.iter().filter_map(session).collect();
        let gone = before.iter().filter_map(session).filter(|session| !left.contains(session)).collect();
        let fields = fields_before.difference(&fields_after).map(|field| (*field).to_owned()).collect();
        let doubtful = before.iter().filter_map(session).max().unwrap_or_default();
        Ok(Loss { sessions, gone, fields, doubtful })
    }
}
