//! Makes connections, pooled or dedicated, so that none can hang on a stopped server or a network that drops
//! everything.
//!
//! Invariant: a connection is used only after two checks: it begins in the schema that the settings name, and its
//! database agrees with what is known of its history.
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use deadpool_postgres::ClientWrapper;
use parking_lot::Mutex;
use rollcall_base::{BackendUrl, RotatingSecret};
use tokio::{
    task::AbortHandle,
    time::{error::Elapsed, timeout},
};
use tokio_postgres::{Client, Config, Row, config::TargetSessionAttrs};
use uuid::Uuid;

use super::{
    LIMIT,
    advice::text_with_advice,
    connect_error::ConnectError,
    dial::{Connected, Protection},
    hosts::Hosts,
    options::PostgresOptions,
    pooled::Pooled,
    rows::Parameters,
    schema_name::SchemaName,
    statement_error::{Failure, text},
    timeline::Timeline,
    tls::TlsSource,
    url::{self, PostgresUrl},
};
use crate::StoreError;

/// The server's own limits, in case it lives and this process is gone (see [`configure`]).
const SETTINGS: &str = "-c statement_timeout=1500 -c lock_timeout=400 -c idle_in_transaction_session_timeout=10000";
/// Each statement is planned once, and always with indexes, because a plan that was made while a table was empty would
/// scan it.
const PLANS: &str = "-c plan_cache_mode=force_generic_plan -c enable_seqscan=off -c enable_bitmapscan=off -c enable_hashjoin=off -c enable_mergejoin=off -c jit=off";

const SILENT: &str = "no answer in time";

/// Makes connections to the server that takes writes.
pub(super) struct Connector {
    url: BackendUrl,
    password: Option<RotatingSecret>,
    pub(super) schema: Option<SchemaName>,
    /// How long connecting to each address of each host may take, if the URL has no `connect_timeout`.
    limit: Duration,
    hosts: Hosts,
    tls: TlsSource,
    /// The protection of the latest connection.
    protection: Mutex<Option<Protection>>,
    /// What this process knows of the database's history. Each connection is compared with it before it is used.
    pub(super) timeline: Arc<Timeline>,
    /// Set if the URL leads to a pooler.
    pub(super) pooled: Option<Arc<Pooled>>,
}

impl Connector {
    /// Reads the files that the URL names, and makes no connection yet.
    pub(super) fn new(options: &PostgresOptions, timeline: Arc<Timeline>) -> Result<Self, ConnectError> {
        let refused = |why: String| ConnectError {
            why: format!("DATABASE_URL: {why}"),
            advice: Some("correct it, or the file that it names".to_owned()),
        };
        let url = url::parse(options.url.reveal()).map_err(refused)?;
        Ok(Self {
            tls: TlsSource::read(&url.tls).map_err(|error| refused(error.to_string()))?,
            url: options.url.clone(),
            password: options.password.clone(),
            schema: options.schema.clone(),
            limit: options.connect,
            hosts: Hosts::default(),
            protection: Mutex::default(),
            timeline,
            pooled: options.pooler.then(Arc::default),
        })
    }

    /// Makes a connection, with the present password and certificates. `settings` are added to the common ones.
    /// Connecting to an address of the URL may take as long as its `connect_timeout` says, or else the usual limit, and
    /// at least `least`.
    pub(super) async fn connect(&self, settings: &str, least: Duration) -> Result<Connected, ConnectError> {
        let PostgresUrl { config, tls } = parse(self.url.current().await.reveal())?;
        let limit = config.get_connect_timeout().copied().unwrap_or(self.limit).max(least);
        let mut config = self.configure(config, settings);
        if let Some(password) = &self.password {
            config.password(password.current().await.reveal());
        }
        let tls = self.tls.current(tls).await?;
        let connected = self.hosts.connect(&config, &tls, limit).await?;
        self.observe(connected.protection);
        Ok(connected)
    }

    /// Makes a connection, checks where it leads, and closes it.
    pub(super) async fn reach(&self) -> Result<(), ConnectError> {
        let Connected { client, connection, .. } = self.connect("", Duration::ZERO).await?;
        let client = ClientWrapper::new(client, tokio::spawn(async { drop(connection.await) }));
        self.check_schema(&client).await
    }

    /// Checks that a new connection leads to the right database. [`Timeline::compare`] describes the result.
    pub(super) async fn compare(&self, client: &Client) -> Result<Option<Uuid>, StoreError> {
        self.check_schema(client).await.map_err(ConnectError::unavailable)?;
        flatten(timeout(LIMIT, self.timeline.compare(client)).await)
    }

    async fn check_schema(&self, client: &Client) -> Result<(), ConnectError> {
        let Some(schema) = &self.schema else { return Ok(()) };
        timeout(LIMIT, schema.check(client)).await.unwrap_or_else(|_| Err(ConnectError::plain(SILENT)))
    }

    /// Returns how the latest connection is protected.
    pub(super) fn protection(&self) -> Option<Protection> {
        *self.protection.lock()
    }

    fn observe(&self, now: Protection) {
        let before = self.protection.lock().replace(now);
        if before.is_some_and(|before| before != now) {
            tracing::warn!(%now, "postgres: connections are protected in another way now");
        }
    }

    /// Returns the URL's settings with those of the store. A pooler accepts none for a session.
    fn configure(&self, mut config: Config, settings: &str) -> Config {
        let given = config.get_options().unwrap_or_default().to_owned();
        let schema = self.schema.as_ref().map(SchemaName::option).unwrap_or_default();
        if self.pooled.is_none() {
            config.options([given.as_str(), SETTINGS, PLANS, &schema, settings].join(" ").trim());
        }
        config
            // A standby accepts connections, and would keep them while it refuses every write.
            .target_session_attrs(TargetSessionAttrs::ReadWrite)
            .tcp_user_timeout(LIMIT)
            .keepalives_idle(Duration::from_secs(5))
            .keepalives_interval(Duration::from_secs(1))
            .keepalives_retries(3);
        if config.get_application_name().is_none() {
            config.application_name("rollcall");
        }
        config
    }
}

fn parse(url: &str) -> Result<PostgresUrl, ConnectError> {
    url::parse(url).map_err(|why| ConnectError::plain(format!("DATABASE_URL: {why}")))
}

/// A connection of one owner, for something that needs it as long as it lives, such as a transaction. It closes when it
/// is dropped.
pub(super) struct Dedicated {
    client: ClientWrapper,
    driver: AbortHandle,
    timeline: Arc<Timeline>,
    /// The incarnation of the database. `None` if there were no tables yet.
    incarnation: Option<Uuid>,
    pooled: Option<Arc<Pooled>>,
    /// The settings that a pooler's connection gets with each transaction.
    settings: Vec<(&'static str, &'static str)>,
    /// Whether a transaction has begun and is not committed yet.
    in_transaction: AtomicBool,
}

impl Dedicated {
    /// Connects, and compares the database with what is known of its history. `settings` and `least` are those of
    /// [`Connector::connect`].
    pub(super) async fn connect(
        connector: &Connector,
        settings: &'static str,
        least: Duration,
    ) -> Result<Self, StoreError> {
        let Connected { client, connection, .. } =
            connector.connect(settings, least).await.map_err(ConnectError::unavailable)?;
        let driver = tokio::spawn(async move {
            // The next statement on the connection finds that it has ended.
            let _ = connection.await;
        });
        let mut made = Self {
            driver: driver.abort_handle(),
            client: ClientWrapper::new(client, driver),
            timeline: Arc::clone(&connector.timeline),
            incarnation: None,
            pooled: connector.pooled.clone(),
            settings: settings.split("-c ").filter_map(|setting| setting.trim().split_once('=')).collect(),
            in_transaction: AtomicBool::new(false),
        };
        if let Some(pooled) = &made.pooled {
            made.end_on_timeout(timeout(LIMIT, pooled.learn(&made.client)).await)?;
        }
        made.incarnation = connector.compare(&made.client).await?;
        Ok(made)
    }

    /// Runs one statement, which is planned the first time. A statement without an answer in time ends the connection,
    /// and the server then undoes what it can.
    pub(super) async fn rows(
        &self,
        limit: Duration,
        sql: &'static str,
        parameters: Parameters<'_>,
    ) -> Result<Vec<Row>, StoreError> {
        match timeout(limit, self.query(sql, parameters)).await {
            Ok(answer) => answer.map_err(Failure::into_error),
            Err(elapsed) => self.end_on_timeout(Err(elapsed)),
        }
    }

    /// Runs one statement without a limit. A caller that gives up must drop the connection.
    pub(super) async fn query(&self, sql: &'static str, parameters: Parameters<'_>) -> Result<Vec<Row>, Failure> {
        match &self.pooled {
            None => Ok(self.client.query(&self.client.prepare_cached(sql).await?, parameters).await?),
            Some(pooled) if self.in_transaction.load(Ordering::Relaxed) => {
                pooled.query_within(&self.client, sql, parameters).await
            }
            Some(pooled) => pooled.query(&self.client, &self.timeline, &self.settings, None, sql, parameters).await,
        }
    }

    /// Runs statements without parameters.
    pub(super) async fn run(&self, limit: Duration, sql: &str) -> Result<(), StoreError> {
        match sql {
            "begin" => self.in_transaction.store(true, Ordering::Relaxed),
            "commit" | "rollback" => self.in_transaction.store(false, Ordering::Relaxed),
            _ => {}
        }
        self.end_on_timeout(timeout(limit, self.client.batch_execute(sql)).await)
    }

    /// Returns whether the connection cannot be used any more, because it is closed, or leads to another database than
    /// the latest connection.
    pub(super) fn is_closed(&self) -> bool {
        self.client.is_closed() || self.driver.is_finished() || !self.timeline.is_current(self.incarnation)
    }

    fn end_on_timeout<T>(&self, answer: Result<Result<T, tokio_postgres::Error>, Elapsed>) -> Result<T, StoreError> {
        if answer.is_err() {
            self.driver.abort();
        }
        flatten(answer)
    }
}

fn flatten<T>(answer: Result<Result<T, tokio_postgres::Error>, Elapsed>) -> Result<T, StoreError> {
    match answer {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) if refused(&error) => Err(StoreError::Refused(text_with_advice(&error))),
        Ok(Err(error)) => Err(StoreError::Unavailable(text(&error))),
        Err(_) => Err(StoreError::Unavailable(SILENT.to_owned())),
    }
}

/// Returns whether the same statement would fail again: data exceptions, violated constraints and syntax errors.
fn refused(error: &tokio_postgres::Error) -> bool {
    error.code().is_some_and(|code| ["22", "23", "42"].contains(&&code.code()[..2]))
}
