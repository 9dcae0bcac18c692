//! Fixtures of the end-to-end tests: a gateway of the real binary on either kind of backend, agents that enter its
//! classrooms, and a look into its backends after each step.
//!
//! Invariant: a test takes a [`Classroom`] that no other test knows, with lessons and users of its own, so tests share
//! gateways and servers without disturbing each other.

#![allow(dead_code, unused_imports, unused_macros, reason = "each test file uses a part of it")]
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod agent;
mod browser;
mod classroom;
mod collector;
pub(crate) mod failpoint;
mod frames;
mod function;
mod http_request;
mod keys;
mod look;
mod machine;
mod mixpanel;
mod polling;
mod publish;
mod socketio;
mod stream;
mod wait;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{LazyLock, OnceLock};

use rollcall_loadtest::servers::{Postgres, PostgresOptions, shared};
use rollcall_loadtest::{Gateway, GatewayOptions};

pub(crate) use agent::{Agent, Whom, agent_event, agent_event_text, refused, session_error};
pub(crate) use browser::in_browser;
pub(crate) use classroom::Classroom;
pub(crate) use collector::{Collector, Span};
pub(crate) use frames::{Frame, PONG, next_frame, next_text};
pub(crate) use function::{Call, FUNCTIONS_SECRET, Function, FunctionsFile, Reply};
pub(crate) use keys::{DAY, Keys, expect_field, hash, student_hash};
pub(crate) use machine::{loads_the_machine, measures_time};
pub(crate) use mixpanel::Mixpanel;
pub(crate) use polling::{Polling, request as polling_request};
pub(crate) use publish::Fence;
pub(crate) use socketio::{Packet, SocketIo};
pub(crate) use stream::{Stored, Stream};
pub(crate) use wait::{SOON, until};

/// How many classrooms a backend has for its tests; each is given out once.
const CLASSROOMS: usize = 200;

/// Runs cases (`async fn case(backend: &Backend)`) on both kinds of backend, as `embedded::case` and `real::case`.
macro_rules! on_both_kinds {
    ($($case:ident),+ $(,)?) => {
        mod embedded {
            $(#[tokio::test] async fn $case() { $crate::common::Backend::embedded().run(super::$case).await })+
        }
        mod real {
            $(#[tokio::test] async fn $case() { $crate::common::Backend::real().run(super::$case).await })+
        }
    };
}
pub(crate) use on_both_kinds;

/// The addresses of a real backend's servers.
#[derive(Debug, Clone)]
pub(crate) struct Servers {
    pub(crate) postgres: String,
    pub(crate) redis: String,
    /// The ports at which the test reads the keys. If it is empty, the test reads them at `redis`.
    pub(crate) keys: Vec<u16>,
    pub(crate) nats: String,
}

impl Servers {
    /// Returns the servers that all tests of the process share, with a fresh database.
    pub(crate) fn shared() -> Self {
        Self {
            postgres: postgres().create_database().unwrap(),
            redis: shared::redis().url(),
            keys: Vec::new(),
            nats: shared::nats().url(),
        }
    }

    /// Returns the options of a gateway that uses these servers.
    pub(crate) fn of(&self, options: GatewayOptions) -> GatewayOptions {
        let Self { postgres, redis, nats, .. } = self;
        options.env("DATABASE_URL", postgres).env("REDIS_URL", redis).env("NATS_URL", nats)
    }
}

/// Returns the PostgreSQL that all tests of the process share. It does not wait for the disk, because no test here cuts
/// the power.
pub(crate) fn postgres() -> &'static Postgres {
    static SERVER: LazyLock<Postgres> = LazyLock::new(|| start_postgres().unwrap());
    &SERVER
}

/// Starts a PostgreSQL for one test.
pub(crate) fn start_postgres() -> std::io::Result<Postgres> {
    Postgres::start_with(PostgresOptions { fsync: false, ..PostgresOptions::default() })
}

/// A running gateway and its backends.
pub(crate) struct Backend {
    pub(crate) gateway: Gateway,
    /// `None` for an embedded gateway: SQLite, with keys and bus in the process.
    servers: Option<Servers>,
    classrooms: Vec<Classroom>,
    taken: AtomicUsize,
}

impl Backend {
    /// Runs a test on this backend. If the test fails, shows the last lines of the gateway.
    pub(crate) async fn run(&'static self, case: impl AsyncFnOnce(&'static Self)) {
        let _log = self.gateway.log_of_failure();
        case(self).await;
    }

    /// Returns the embedded gateway that all tests of the process share.
    pub(crate) fn embedded() -> &'static Self {
        static BACKEND: LazyLock<Backend> = LazyLock::new(|| Backend::start(None, GatewayOptions::clone));
        &BACKEND
    }

    /// Returns the gateway on Postgres, Redis and NATS that all tests of the process share.
    pub(crate) fn real() -> &'static Self {
        static BACKEND: OnceLock<Backend> = OnceLock::new();
        BACKEND.get_or_init(|| Self::start(Some(Servers::shared()), GatewayOptions::clone))
    }

    /// Starts a gateway for one test. Its backends are of the same kind as this one's, and its options are changed.
    pub(crate) fn another(&self, change: impl FnOnce(&GatewayOptions) -> GatewayOptions) -> Self {
        Self::start(self.servers.as_ref().map(|_| Servers::shared()), change)
    }

    /// Starts a gateway on these servers, or an embedded one if there are none.
    pub(crate) fn start(servers: Option<Servers>, change: impl FnOnce(&GatewayOptions) -> GatewayOptions) -> Self {
        Self::of(GatewayOptions::new(env!("CARGO_BIN_EXE_rollcall")), servers, change)
    }

    /// Starts a gateway of this program on these servers, or an embedded one if there are none.
    pub(crate) fn of(
        program: GatewayOptions,
        servers: Option<Servers>,
        change: impl FnOnce(&GatewayOptions) -> GatewayOptions,
    ) -> Self {
        let options = match &servers {
            Some(servers) => servers.of(program),
            None => program,
        };
        let options = change(&options);
        let gateway = Gateway::start(options.clone()).unwrap();
        let classrooms: Vec<_> = (0..CLASSROOMS).map(|_| Classroom::new()).collect();
        classroom::load(&options, gateway.folder(), &classrooms);
        Self { gateway, servers, classrooms, taken: AtomicUsize::new(0) }
    }

    /// Takes a classroom with lessons that no other test has.
    pub(crate) fn classroom(&self) -> &Classroom {
        let next = self.taken.fetch_add(1, Ordering::Relaxed);
        self.classrooms.get(next).expect("fewer tests than classrooms")
    }

    /// Returns all classrooms of this backend, for a test that does not share the backend.
    pub(crate) fn classrooms(&self) -> &[Classroom] {
        &self.classrooms
    }

    /// Returns the options with which another node starts on the same servers.
    pub(crate) fn beside(&self) -> GatewayOptions {
        self.servers().unwrap().of(GatewayOptions::new(env!("CARGO_BIN_EXE_rollcall")))
    }

    /// Returns the addresses of the servers, or `None` for an embedded gateway.
    pub(crate) fn servers(&self) -> Option<&Servers> {
        self.servers.as_ref()
    }

    /// Returns whether the gateway is embedded.
    pub(crate) fn is_embedded(&self) -> bool {
        self.servers.is_none()
    }

    /// Returns what a test sees of the keys in Redis, or `None` for an embedded gateway.
    pub(crate) async fn keys(&self) -> Option<Keys> {
        match &self.servers {
            Some(Servers { redis, keys, .. }) if keys.is_empty() => Some(Keys::of(redis).await),
            Some(Servers { keys, .. }) => Some(Keys::at(keys).await),
            None => None,
        }
    }

    /// Returns what a test sees of JetStream, or `None` for an embedded gateway.
    pub(crate) async fn stream(&self) -> Option<Stream> {
        match &self.servers {
            Some(servers) => Some(Stream::of(&servers.nats).await),
            None => None,
        }
    }
}
