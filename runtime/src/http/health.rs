//! Decides for `/readyz` whether this node can serve.
//!
//! Invariant: each backend is asked at most once in [`FRESH`], however many requests come, and no answer takes longer
//! than [`TIMEOUT`].
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures_util::future::join3;
use serde::Serialize;
use tokio::{
    sync::{Mutex, watch},
    time::Instant,
};

use crate::auth::Keyring;
use rollcall_bus::{Bus, ProbeError};
use rollcall_keys::LessonKeys;
use rollcall_store::{Lease, Store, StoreError};

/// How long an answer is reused.
const FRESH: Duration = Duration::from_secs(1);
/// How long a backend may take to answer.
const TIMEOUT: Duration = Duration::from_millis(1500);

/// The state of one backend.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Backend {
    /// The backend's name.
    pub name: &'static str,
    /// Whether the backend answers and can do what the gateway needs.
    pub up: bool,
    /// Why the backend does not work, and what to change if that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
    /// Whether the backend answers but cannot do what the gateway needs, and an operator must act: a full disk, or a
    /// missing right.
    #[serde(skip)]
    pub unable: bool,
}

/// The state of all backends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct BackendStates {
    /// The SQL database. Without it no client can connect.
    pub sql: Backend,
    /// The lesson keys. Without them no client can join a lesson.
    pub keys: Backend,
    /// The bus. While it is away, events wait and the node stays ready. While it is unable to store events, the node is
    /// not ready.
    pub bus: Backend,
    /// The keys of tokens. Without any, only guests can connect.
    pub identity: Backend,
}

/// The body of `/readyz`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Readiness {
    /// Whether new connections should come to this node.
    pub ready: bool,
    /// Whether this node drains.
    pub draining: bool,
    /// The backends.
    pub backends: BackendStates,
}

/// Asks the backends whether they work.
pub struct Health {
    store: Arc<dyn Store>,
    kv: Arc<dyn LessonKeys>,
    bus: Arc<dyn Bus>,
    draining: Arc<AtomicBool>,
    identity: Option<Arc<Keyring>>,
    lease: Option<(watch::Receiver<Lease>, Duration)>,
    last: Mutex<Option<(Instant, BackendStates)>>,
}

impl Health {
    /// Creates a check of these backends. The node sets `draining` when it shuts down.
    #[must_use]
    pub fn new(store: Arc<dyn Store>, kv: Arc<dyn LessonKeys>, bus: Arc<dyn Bus>, draining: Arc<AtomicBool>) -> Self {
        Self { store, kv, bus, draining, identity: None, lease: None, last: Mutex::default() }
    }

    /// Also requires that this keyring has a key.
    #[must_use]
    pub fn with_identity(self, keyring: Arc<Keyring>) -> Self {
        Self { identity: Some(keyring), ..self }
    }

    /// Asks SQL for a write under this lease, because a full or read-only database still answers a ping.
    #[must_use]
    pub fn with_lease(self, lease: watch::Receiver<Lease>, ttl: Duration) -> Self {
        Self { lease: Some((lease, ttl)), ..self }
    }

    /// Returns the current state, which may be up to [`FRESH`] old.
    pub async fn readiness(&self) -> Readiness {
        let backends = self.backends().await;
        let draining = self.draining.load(Ordering::Relaxed);
        let able = backends.sql.up && backends.identity.up && !backends.bus.unable;
        Readiness { ready: able && !draining, draining, backends }
    }

    async fn write(&self) -> Result<(), StoreError> {
        match &self.lease {
            Some((lease, ttl)) => {
                let lease = *lease.borrow();
                self.store.probe(lease, *ttl).await
            }
            None => self.store.ping().await,
        }
    }

    async fn backends(&self) -> BackendStates {
        // The lock is held while the backends are asked, so that requests that come meanwhile get the same answer.
        let mut last = self.last.lock().await;
        if let Some((at, backends)) = &*last
            && at.elapsed() < FRESH
        {
            return backends.clone();
        }
        let usable = self.identity.as_ref().is_none_or(|keyring| keyring.is_usable());
        let unable = AtomicBool::new(false);
        let (sql, keys, mut bus) = join3(
            asked(self.store.name(), self.write()),
            asked(self.kv.name(), self.kv.ping()),
            asked(self.bus.name(), async {
                let probed = self.bus.probe().await;
                probed.inspect_err(|error| unable.store(matches!(error, ProbeError::Unable(_)), Ordering::Relaxed))
            }),
        )
        .await;
        bus.unable = unable.into_inner();
        let problem = (!usable).then(|| "no issuer's keys are loaded: see ROLLCALL_JWKS, and the log".to_owned());
        let identity = Backend { name: "token keys", up: usable, problem, unable: !usable };
        let backends = BackendStates { sql, keys, bus, identity };
        *last = Some((Instant::now(), backends.clone()));
        backends
    }
}

async fn asked<E: std::fmt::Display>(name: &'static str, ping: impl Future<Output = Result<(), E>>) -> Backend {
    let problem = match tokio::time::timeout(TIMEOUT, ping).await {
        Ok(Ok(())) => None,
        Ok(Err(error)) => Some(error.to_string()),
        Err(_) => Some(format!("no answer within {TIMEOUT:?}")),
    };
    if let Some(problem) = &problem {
        tracing::debug!(backend = name, problem, "a backend is not ready");
    }
    Backend { name, up: problem.is_none(), problem, unable: false }
}
