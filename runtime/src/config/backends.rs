//! The settings of the backends that keep sessions, keys and events.
use std::path::PathBuf;

use rollcall_base::{BackendUrl, RotatingSecret};
use rollcall_bus::nats::NatsOptions;
use rollcall_keys::RedisOptions;
use rollcall_store::postgres::{SchemaName, check_url};

use super::{
    address::{backend, client_tls},
    names, nats,
    source::{Given, Source},
    value,
};

/// The default number of connections for clients' requests. Behind a pooler, many nodes share the pooler's connections
/// to the server.
const POOL: usize = 12;
const POOL_BEHIND_POOLER: usize = 2;

/// The database for sessions and lessons.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Database {
    /// An SQLite file that only this process uses.
    Sqlite(PathBuf),
    /// PostgreSQL.
    Postgres(BackendUrl),
}

/// The addresses and options of the backends.
#[derive(Clone, Debug)]
pub struct BackendsConfig {
    /// The SQL database.
    pub database: Database,
    /// Redis. `None` if the keys are in the process.
    pub redis: Option<RedisOptions>,
    /// NATS. `None` if the bus is in the process.
    pub nats: Option<NatsOptions>,
    /// The password for PostgreSQL if it is not in the address.
    pub postgres_password: Option<RotatingSecret>,
    /// The schema of the gateway's tables in PostgreSQL. `None` for the first schema of the role's search path.
    pub postgres_schema: Option<SchemaName>,
    /// How many connections to PostgreSQL serve clients' requests.
    pub postgres_pool: usize,
    /// Whether the address of PostgreSQL leads to a pooler that lends a connection for one transaction.
    pub postgres_pooler: bool,
    /// Whether the database keeps published events for the webhook.
    pub keep_published: bool,
}

impl BackendsConfig {
    pub(super) fn read(source: &mut Source<'_>) -> Self {
        let postgres_pooler = source.value(&names::POSTGRES_POOLER, value::switch);
        let default_pool = if postgres_pooler { POOL_BEHIND_POOLER } else { POOL };
        Self {
            database: source.address_or_default(&names::DATABASE_URL, database),
            redis: redis(source),
            nats: nats::read(source),
            postgres_password: source.address(&names::DATABASE_PASSWORD, |given| Ok(password(given))),
            postgres_schema: source.optional(&names::SCHEMA, |text| text.parse().map_err(str::to_owned)),
            postgres_pool: source.optional(&names::POSTGRES_POOL, value::count(1)).unwrap_or(default_pool),
            postgres_pooler,
            keep_published: false,
        }
    }

    /// Returns whether no other node may run beside this node, because its keys or its bus are in the process, where
    /// other nodes do not see them.
    #[must_use]
    pub fn standalone(&self) -> bool {
        self.redis.is_none() || self.nats.is_none()
    }
}

/// Reads `sqlite:FILE` or `postgres://...`.
fn database(given: &Given) -> Result<Database, String> {
    if let Some(path) = given.text.strip_prefix("sqlite:") {
        let path = path.strip_prefix("//").unwrap_or(path);
        return if path.is_empty() || path.starts_with(":memory") {
            Err("name a file, like sqlite:rollcall.db".into())
        } else {
            Ok(Database::Sqlite(PathBuf::from(path)))
        };
    }
    backend(&names::DATABASE_URL, given, postgres).map(Database::Postgres)
}

fn postgres(text: &str) -> Result<(), String> {
    if !text.starts_with("postgres://") && !text.starts_with("postgresql://") {
        return Err("write sqlite:FILE or postgres://USER:PASSWORD@HOST/DATABASE".into());
    }
    check_url(text)
}

fn password(given: &Given) -> RotatingSecret {
    match &given.file {
        Some(path) => RotatingSecret::in_file(&given.text, names::DATABASE_PASSWORD.name, path.clone(), |_| Ok(())),
        None => RotatingSecret::new(given.text.as_str()),
    }
}

/// Reads the servers, the prefix and the certificates.
fn redis(source: &mut Source<'_>) -> Option<RedisOptions> {
    let url = source.address(&names::REDIS_URL, |given| backend(&names::REDIS_URL, given, rollcall_keys::check_url));
    let prefix = source.optional(&names::REDIS_PREFIX, value::prefix).unwrap_or_default();
    let tls = client_tls(source, [&names::REDIS_CA_FILE, &names::REDIS_CERT, &names::REDIS_KEY]);
    let url = url?;
    if let Err(problem) = rollcall_keys::check_certificates(&url, &tls) {
        source.fault(&names::REDIS_URL, problem);
    }
    Some(RedisOptions { url, prefix, tls })
}
