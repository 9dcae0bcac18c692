//! Runs statements behind a pooler that lends a server's connection for one transaction, such as pgbouncer in
//! transaction mode.
//!
//! The settings of a session are made in each transaction, before its statement. Both are sent with the commit in one
//! piece, so that a call is still one round trip. Statements are prepared if the pooler keeps track of prepared
//! statements, and otherwise sent as text.
//!
//! Invariant: a write of unknown outcome has ended before the next statement of this process begins. Each transaction
//! takes a lock of this process in shared mode, and then reads the database's clock: after its deadline it fails. The
//! statement after a lost one takes that lock exclusively, which waits for all transactions that hold it, and reads the
//! clock again: a transaction that has not begun before its deadline never will.
use std::{
    collections::HashMap,
    fmt::Write,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use deadpool_postgres::ClientWrapper;
use futures_util::future::join3;
use parking_lot::Mutex;
use tokio::time::{Instant, sleep};
use tokio_postgres::{
    Client, Error, Row, SimpleQueryMessage,
    error::SqlState,
    types::{ToSql, Type},
};
use uuid::Uuid;

use super::{
    LIMIT,
    rows::Parameters,
    statement_error::{Failure, PAUSE},
    timeline::Timeline,
};
use crate::StoreError;

/// The settings of each transaction. Without a pooler [`super::connect`] applies them to the session.
pub(super) const SETTINGS: [(&str, &str); 9] = [
    ("statement_timeout", "1500"),
    ("lock_timeout", "400"),
    ("plan_cache_mode", "force_generic_plan"),
    ("enable_seqscan", "off"),
    ("enable_bitmapscan", "off"),
    ("enable_hashjoin", "off"),
    ("enable_mergejoin", "off"),
    ("jit", "off"),
    ("idle_in_transaction_session_timeout", "10000"),
];
/// How long a reading of the database's clock is used.
const CLOCK_FOR: Duration = Duration::from_secs(30);

/// The database's clock, in seconds since 1970, at `at` or a little later.
#[derive(Clone, Copy, Debug)]
struct Clock {
    at: Instant,
    time: f64,
}

/// What the connections through one pooler share.
pub(super) struct Pooled {
    lock: i64,
    clock: Mutex<Option<Clock>>,
    /// Whether the pooler keeps track of prepared statements. This is unknown before the first connection.
    prepares: AtomicBool,
    types: Mutex<HashMap<&'static str, Vec<Type>>>,
    /// The deadlines of transactions whose outcome is unknown.
    lost: Mutex<Vec<f64>>,
}

impl Default for Pooled {
    fn default() -> Self {
        let bytes: [u8; 8] = std::array::from_fn(|place| Uuid::new_v4().as_bytes()[place]);
        Self {
            lock: i64::from_ne_bytes(bytes),
            clock: Mutex::default(),
            prepares: AtomicBool::new(false),
            types: Mutex::default(),
            lost: Mutex::default(),
        }
    }
}

impl Pooled {
    /// Finds out whether the pooler keeps track of prepared statements. If it does, it gives them names of its own.
    pub(super) async fn learn(&self, client: &Client) -> Result<(), Error> {
        const OWN_NAME: &str = "select name from pg_prepared_statements where statement like '%rollcall asks%'";
        client.batch_execute("begin").await?;
        let statement = client.prepare(OWN_NAME).await?;
        let rows = client.query(&statement, &[]).await?;
        let is_ours = |name: &str| name.strip_prefix('s').is_some_and(|number| number.parse::<u64>().is_ok());
        let renamed = rows.iter().all(|row| row.try_get(0).is_ok_and(|name| !is_ours(name)));
        self.prepares.store(!rows.is_empty() && renamed, Ordering::Relaxed);
        // The rows hold the statement, too. If it were closed after the commit, the pooler might send the close to
        // another connection.
        drop((statement, rows));
        client.batch_execute("commit").await
    }

    /// Returns the time by which a transaction of this process that is sent now must have begun.
    pub(super) async fn deadline(&self, client: &Client) -> Result<f64, Error> {
        let known = *self.clock.lock();
        let clock = match known.filter(|clock| clock.at.elapsed() < CLOCK_FOR) {
            Some(clock) => clock,
            None => {
                let at = Instant::now();
                let time = self.time(client, "").await?;
                *self.clock.lock().insert(Clock { at, time })
            }
        };
        Ok(clock.time + clock.at.elapsed().as_secs_f64() + LIMIT.as_secs_f64())
    }

    /// Records that a transaction with this deadline got no answer.
    pub(super) fn lose(&self, deadline: f64) {
        self.lost.lock().push(deadline);
    }

    /// Returns when each lost transaction has ended, or can no longer begin.
    pub(super) async fn await_lost(&self, client: &Client) -> Result<(), Failure> {
        loop {
            if self.lost.lock().is_empty() {
                return Ok(());
            }
            let alone = format!("select pg_advisory_xact_lock({});", self.lock);
            let now = self.time(client, &alone).await?;
            let latest = {
                let mut lost = self.lost.lock();
                lost.retain(|deadline| *deadline >= now);
                lost.iter().copied().fold(now, f64::max)
            };
            sleep(PAUSE.max(Duration::from_secs_f64((latest - now).clamp(0.0, 0.2)))).await;
        }
    }

    /// Returns the database's clock after this statement, both in one transaction.
    async fn time(&self, client: &Client, first: &str) -> Result<f64, Error> {
        let sql = format!(
            "select set_config('lock_timeout', '400', true), set_config('statement_timeout', '1500', true); {first} \
             select extract(epoch from clock_timestamp())::float8"
        );
        let answers = client.simple_query(&sql).await?;
        let times = answers.iter().rev().filter_map(|answer| match answer {
            SimpleQueryMessage::Row(row) => row.get(0)?.parse().ok(),
            _ => None,
        });
        // The server always returns a number here.
        Ok(times.into_iter().next().unwrap_or(f64::MIN))
    }

    /// Runs one statement in a transaction of its own, with these settings added to the usual ones. A write has a
    /// deadline.
    pub(super) async fn query(
        &self,
        client: &ClientWrapper,
        timeline: &Timeline,
        settings: &[(&'static str, &'static str)],
        deadline: Option<f64>,
        sql: &'static str,
        parameters: Parameters<'_>,
    ) -> Result<Vec<Row>, Failure> {
        let prelude = self.prelude(timeline, settings, deadline);
        let (begun, rows, ended) = if self.prepares.load(Ordering::Relaxed) {
            let statement = client.prepare_cached(sql).await?;
            let rows = client.query(&statement, parameters);
            join3(client.batch_execute(&prelude), rows, client.batch_execute("commit")).await
        } else {
            let types = self.types(client, sql).await?;
            let typed: Vec<(&(dyn ToSql + Sync), Type)> = parameters.iter().copied().zip(types).collect();
            let rows = client.query_typed(sql, &typed);
            join3(client.batch_execute(&prelude), rows, client.batch_execute("commit")).await
        };
        match begun {
            Err(error) if error.code() == Some(&SqlState::DIVISION_BY_ZERO) => {
                *self.clock.lock() = None;
                return Err(Failure::Again(StoreError::Unavailable("the statement came too late".to_owned())));
            }
            Err(error) if error.code() == Some(&SqlState::INVALID_ARGUMENT_FOR_LOG) => {
                return Err(Failure::ReadOnly(StoreError::Unavailable("the database has another history".to_owned())));
            }
            // The statement reads the position in the log, which a standby refuses.
            Err(error) if error.code() == Some(&SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE) => {
                return Err(Failure::ReadOnly(StoreError::Unavailable("the database is a standby".to_owned())));
            }
            begun => begun?,
        }
        let rows = rows?;
        ended?;
        Ok(rows)
    }

    fn prelude(&self, timeline: &Timeline, settings: &[(&'static str, &'static str)], deadline: Option<f64>) -> String {
        let mut sql = String::with_capacity(1024);
        sql.push_str("begin; select ");
        for (place, (name, value)) in SETTINGS.iter().chain(settings).enumerate() {
            let comma = if place == 0 { "" } else { ", " };
            let _ = write!(sql, "{comma}set_config('{name}', '{value}', true)");
        }
        sql.push(';');
        if let Some(deadline) = deadline {
            let lock = self.lock;
            let _ = write!(
                sql,
                " select pg_advisory_xact_lock_shared({lock}); \
                 select 1 / (extract(epoch from clock_timestamp()) < {deadline:.6})::int;"
            );
        }
        if let Some(here) = timeline.wal() {
            let _ = write!(
                sql,
                " select ln((substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8) = '{here}')::int::float8);"
            );
        }
        sql
    }

    /// Runs one statement in a transaction that the caller has begun.
    pub(super) async fn query_within(
        &self,
        client: &Client,
        sql: &'static str,
        parameters: Parameters<'_>,
    ) -> Result<Vec<Row>, Failure> {
        let known = self.types.lock().get(sql).cloned();
        let types = match known {
            Some(types) => types,
            None if parameters.is_empty() => Vec::new(),
            None => self.learn_types(client, sql).await?,
        };
        let typed: Vec<(&(dyn ToSql + Sync), Type)> = parameters.iter().copied().zip(types).collect();
        Ok(client.query_typed(sql, &typed).await?)
    }

    /// Returns the types of a statement's parameters, which are asked for once.
    async fn types(&self, client: &Client, sql: &'static str) -> Result<Vec<Type>, Failure> {
        let known = self.types.lock().get(sql).cloned();
        if let Some(types) = known {
            return Ok(types);
        }
        client.batch_execute("begin").await?;
        let types = self.learn_types(client, sql).await;
        client.batch_execute("commit").await?;
        types
    }

    /// Asks for the types in the transaction. The statement is closed before the pooler gives the connection to another
    /// client.
    async fn learn_types(&self, client: &Client, sql: &'static str) -> Result<Vec<Type>, Failure> {
        let types = client.prepare(sql).await?.params().to_vec();
        self.types.lock().insert(sql, types.clone());
        Ok(types)
    }
}
