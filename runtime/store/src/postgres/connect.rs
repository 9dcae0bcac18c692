//! How a connection is made, pooled or dedicated, so that none can hang on a stopped server or a dead line.
//!
//! Connections are plain; a URL that asks for TLS is refused at the first connection.
use std::{sync::Arc, time::Duration};

use deadpool_postgres::ClientWrapper;
use tokio::{
    task::AbortHandle,
    time::{error::Elapsed, timeout},
};
use tokio_postgres::{Config, Row, config::TargetSessionAttrs};
use uuid::Uuid;

use super::{
    LIMIT,
    hosts::{Connected, Hosts},
    rows::Parameters,
    statement_error::text,
    timeline::Timeline,
};
use crate::StoreError;
use rollcall_base::BackendUrl;

/// The server's own limits, for the case that it lives and we do not: see [`configure`].
const SETTINGS: &str = "-c statement_timeout=1500 -c lock_timeout=400 -c idle_in_transaction_session_timeout=10000";
/// Each statement is planned once, and always by the indexes: a plan made while a table was empty would scan it.
const PLANS: &str = "-c plan_cache_mode=force_generic_plan -c enable_seqscan=off -c enable_bitmapscan=off -c enable_hashjoin=off -c enable_mergejoin=off -c jit=off";

/// Makes connections to the server that takes writes.
pub(super) struct Connector {
    url: BackendUrl,
    /// For each address of each host, where the URL has no `connect_timeout`.
    limit: Duration,
    hosts: Hosts,
    /// What each connection is compared with before it is used.
    pub(super) timeline: Arc<Timeline>,
}

impl Connector {
    /// Makes none yet.
    pub(super) fn new(url: BackendUrl, limit: Duration, timeline: Arc<Timeline>) -> Result<Self, StoreError> {
        configure(url.reveal())?;
        Ok(Self { url, limit, hosts: Hosts::default(), timeline })
    }

    /// A new connection, with the password of this moment. `settings` come after the common ones. An address of the URL
    /// may take as long as its `connect_timeout` says, else the usual limit, and `least` in either case.
    pub(super) async fn connect(&self, settings: &str, least: Duration) -> Result<Connected, StoreError> {
        let mut config = configure(self.url.current().await.reveal())?;
        let limit = config.get_connect_timeout().copied().unwrap_or(self.limit).max(least);
        if !settings.is_empty() {
            let common = config.get_options().unwrap_or_default().to_owned();
            config.options(format!("{common} {settings}"));
        }
        self.hosts.connect(&config, limit).await
    }
}

/// The URL with our settings of a session.
fn configure(url: &str) -> Result<Config, StoreError> {
    let mut config: Config = url
        .parse()
        // The error's text may hold parts of the URL, and that a password.
        .map_err(|_| StoreError::Refused("DATABASE_URL is not a PostgreSQL URL".to_owned()))?;
    let given = config.get_options().unwrap_or_default().to_owned();
    config
        .options(format!("{given} {SETTINGS} {PLANS}").trim_start())
        // A standby accepts connections, and would keep them while it refuses every write.
        .target_session_attrs(TargetSessionAttrs::ReadWrite)
        .tcp_user_timeout(LIMIT)
        .keepalives_idle(Duration::from_secs(5))
        .keepalives_interval(Duration::from_secs(1))
        .keepalives_retries(3);
    if config.get_application_name().is_none() {
        config.application_name("rollcall");
    }
    Ok(config)
}

/// A connection of one owner, for what lives as long as it, like a transaction. It closes when it is dropped.
pub(super) struct Dedicated {
    client: ClientWrapper,
    driver: AbortHandle,
    timeline: Arc<Timeline>,
    /// Of the database that it leads to; none where there were no tables yet.
    incarnation: Option<Uuid>,
}

impl Dedicated {
    /// Connects, and compares the database with what is known of its history. `settings` and `least` as in
    /// [`Connector::connect`].
    pub(super) async fn connect(connector: &Connector, settings: &str, least: Duration) -> Result<Self, StoreError> {
        let (client, connection) = connector.connect(settings, least).await?;
        let driver = tokio::spawn(async move {
            // Its end is seen by whoever uses it next.
            let _ = connection.await;
        });
        let mut made = Self {
            driver: driver.abort_handle(),
            client: ClientWrapper::new(client, driver),
            timeline: Arc::clone(&connector.timeline),
            incarnation: None,
        };
        made.incarnation = made.end_on_timeout(timeout(LIMIT, made.timeline.compare(&made.client)).await)?;
        Ok(made)
    }

    /// Runs one statement, which is planned the first time. One that is not answered in time ends the connection: the
    /// server then undoes what it can.
    pub(super) async fn rows(
        &self,
        limit: Duration,
        sql: &'static str,
        parameters: Parameters<'_>,
    ) -> Result<Vec<Row>, StoreError> {
        self.end_on_timeout(timeout(limit, self.query(sql, parameters)).await)
    }

    /// The same without a limit: whoever gives it up drops the connection.
    pub(super) async fn query(
        &self,
        sql: &'static str,
        parameters: Parameters<'_>,
    ) -> Result<Vec<Row>, tokio_postgres::Error> {
        self.client.query(&self.client.prepare_cached(sql).await?, parameters).await
    }

    /// Runs statements without parameters.
    pub(super) async fn run(&self, limit: Duration, sql: &str) -> Result<(), StoreError> {
        self.end_on_timeout(timeout(limit, self.client.batch_execute(sql)).await)
    }

    /// Whether it is of no more use: it is closed, or leads to another database than the latest connection does.
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
        Ok(Err(error)) if refused(&error) => Err(StoreError::Refused(text(&error))),
        Ok(Err(error)) => Err(StoreError::Unavailable(text(&error))),
        Err(_) => Err(StoreError::Unavailable("no answer in time".to_owned())),
    }
}

/// Data exceptions, constraints, and syntax: the same would fail again.
fn refused(error: &tokio_postgres::Error) -> bool {
    error.code().is_some_and(|code| ["22", "23", "42"].contains(&&code.code()[..2]))
}
