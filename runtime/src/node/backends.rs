//! Connects the backends that the configuration names.
use std::{sync::Arc, time::Duration};

use tokio::sync::mpsc;

use super::StartError;
use crate::config::{BackendsConfig, Database};
use rollcall_bus::{
    Bus, BusEvent,
    memory::{LogLimits, MemoryBus},
    nats::{NatsBus, NatsOptions},
};
use rollcall_keys::{LessonKeys, memory::MemoryKeys};
use rollcall_store::{
    Store,
    postgres::{ConnectError, PostgresOptions, PostgresStore},
    sqlite::SqliteStore,
};

/// How often a backend is tried at the start, and the pause between two tries.
const ATTEMPTS: usize = 3;
const PAUSE: Duration = Duration::from_millis(250);

/// The database, Redis and NATS, or what replaces them in the process.
pub struct Backends {
    /// The SQL database with its tables up to date.
    pub store: Arc<dyn Store>,
    /// The store of lesson keys.
    pub kv: Arc<dyn LessonKeys>,
    /// The bus.
    pub bus: Arc<dyn Bus>,
    /// The events of the bus.
    pub feed: mpsc::Receiver<BusEvent>,
}

impl Backends {
    /// Connects all backends.
    ///
    /// # Errors
    /// Returns an error for the first backend that is away.
    pub async fn connect(config: &BackendsConfig, max_body: usize) -> Result<Self, StartError> {
        let store = store(config).await?;
        let kv = kv(config).await?;
        let (bus, feed) = bus(config, max_body).await?;
        Ok(Self { store, kv, bus, feed })
    }
}

/// Connects only the SQL database, and brings its tables up to date.
///
/// # Errors
/// Returns an error if the database is away, or its tables do not fit this binary and cannot be changed.
pub async fn store(config: &BackendsConfig) -> Result<Arc<dyn Store>, StartError> {
    let store = sql(config).await?;
    store
        .migrate()
        .await
        .map_err(StartError::at("the tables", "README, \"Upgrades\", has the roles and their grants"))?;
    Ok(store)
}

/// Connects only the SQL database, and leaves its tables unchanged.
///
/// # Errors
/// Returns an error if the database is away.
pub async fn sql(config: &BackendsConfig) -> Result<Arc<dyn Store>, StartError> {
    Ok(match &config.database {
        Database::Sqlite(path) => {
            let store = SqliteStore::open(path).map_err(StartError::at(
                format!("SQLite file {}", path.display()),
                "make the file's folder writable, or name another file in DATABASE_URL",
            ))?;
            Arc::new(store.keeping_published(config.keep_published))
        }
        Database::Postgres(url) => {
            let options = PostgresOptions {
                password: config.postgres_password.clone(),
                schema: config.postgres_schema.clone(),
                pool_size: config.postgres_pool,
                pooler: config.postgres_pooler,
                ..PostgresOptions::new(url.clone())
            };
            let what = format!("PostgreSQL at {url}");
            let refused = |ConnectError { why, advice }| {
                let hint = advice.map_or("start it, or set DATABASE_URL to where it is".into(), Into::into);
                StartError { what: what.clone(), why, hint }
            };
            let store = PostgresStore::connect(&options).map_err(refused)?;
            with_retries(async || store.reach().await).await.map_err(refused)?;
            Arc::new(store)
        }
    })
}

/// Connects only the store of lesson keys.
///
/// # Errors
/// Returns an error if the store is away.
pub async fn kv(config: &BackendsConfig) -> Result<Arc<dyn LessonKeys>, StartError> {
    Ok(match &config.redis {
        None => Arc::new(MemoryKeys::new()),
        Some(options) => {
            with_retries(async || rollcall_keys::connect(options.clone()).await).await.map_err(StartError::at(
                format!("Redis at {}", options.url),
                "if it does not run, start it, or correct or unset REDIS_URL",
            ))?
        }
    })
}

/// Connects only the bus. Its feed has events with bodies of up to `max_body` bytes.
///
/// # Errors
/// Returns an error if the bus is away.
pub async fn bus(
    config: &BackendsConfig,
    max_body: usize,
) -> Result<(Arc<dyn Bus>, mpsc::Receiver<BusEvent>), StartError> {
    match &config.nats {
        None => {
            let (bus, feed) = MemoryBus::start(LogLimits::default());
            Ok((Arc::new(bus), feed))
        }
        Some(options) => {
            let options = NatsOptions { max_body, ..options.clone() };
            let (bus, feed) =
                with_retries(async || NatsBus::connect_with(options.clone()).await).await.map_err(|error| {
                    StartError {
                        what: format!("NATS at {}", options.url),
                        why: error.to_string(),
                        hint: error.hint().into(),
                    }
                })?;
            Ok((Arc::new(bus), feed))
        }
    }
}

/// Tries a few times, because a server may be busy. A server that does not run refuses each try at once.
async fn with_retries<T, E>(ask: impl AsyncFn() -> Result<T, E>) -> Result<T, E> {
    for _ in 1..ATTEMPTS {
        if let Ok(answer) = ask().await {
            return Ok(answer);
        }
        tokio::time::sleep(PAUSE).await;
    }
    ask().await
}
