//! The servers that gateways use, over plain TCP or TLS.

use std::io;

use rollcall_loadtest::servers::{
    Authority, Issued, MemberOptions, Nats, NatsMember, NatsVersion, Postgres, PostgresOptions, Redis, RedisOptions,
    free_port,
};

/// Access rules with which PostgreSQL refuses clients without TLS.
const ONLY_TLS: &str = "hostssl all all all trust\n";
/// The address of all servers, which run on this machine.
const HOST: &str = "127.0.0.1";

/// The servers that gateways use. They must be dropped after the gateways.
pub(crate) struct Backends {
    pub(crate) postgres: Postgres,
    /// The URL of the gateways' database.
    pub(crate) database: String,
    pub(crate) redis: Redis,
    pub(crate) nats: NatsServer,
    /// The settings that gateways need beside the database's URL.
    pub(crate) settings: Vec<(&'static str, String)>,
    /// Keeps the certificates' files from being deleted.
    _authority: Option<Authority>,
}

/// A NATS server with or without TLS.
pub(crate) enum NatsServer {
    Plain(Nats),
    Tls(NatsMember),
}

impl NatsServer {
    pub(crate) fn pid(&self) -> u32 {
        match self {
            Self::Plain(nats) => nats.pid(),
            Self::Tls(nats) => nats.pid(),
        }
    }
}

impl Backends {
    pub(crate) fn plain(postgres: PostgresOptions) -> io::Result<Self> {
        let postgres = Postgres::start_with(postgres)?;
        let (redis, nats) = (Redis::start()?, Nats::start()?);
        Ok(Self {
            database: postgres.create_database()?,
            settings: vec![("REDIS_URL", redis.url()), ("NATS_URL", nats.url())],
            postgres,
            redis,
            nats: NatsServer::Plain(nats),
            _authority: None,
        })
    }

    /// Starts the servers with certificates of a private authority. Gateways check their names.
    pub(crate) fn tls(mut postgres: PostgresOptions) -> io::Result<Self> {
        let authority = Authority::new()?;
        let own = authority.issue(&[HOST])?;
        postgres.settings.extend(PostgresOptions::with_tls(&authority, &own, ONLY_TLS)?.settings);
        let postgres = Postgres::start_with(postgres)?;
        let (redis_port, ca) = (free_port()?, authority.certificate().display().to_string());
        let redis = Redis::start_with(RedisOptions::default().with_tls(redis_port, &authority, &own, false))?;
        let Issued { certificate, key } = &own;
        let nats = format!(
            "jetstream {{ store_dir: store }}\ntls {{ cert_file: {certificate:?}, key_file: {key:?}, timeout: 5 }}\n"
        );
        let nats = NatsMember::start_with(MemberOptions::new(NatsVersion::default(), nats)?)?;
        Ok(Self {
            database: format!("{}?sslmode=verify-full&sslrootcert={ca}", postgres.create_database()?),
            settings: vec![
                ("REDIS_URL", format!("rediss://{HOST}:{redis_port}")),
                ("ROLLCALL_REDIS_CA_FILE", ca.clone()),
                ("NATS_URL", format!("tls://{HOST}:{}", nats.port())),
                ("ROLLCALL_NATS_CA_FILE", ca),
            ],
            postgres,
            redis,
            nats: NatsServer::Tls(nats),
            _authority: Some(authority),
        })
    }
}
