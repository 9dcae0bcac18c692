//! Whether this node can serve, for `/readyz`.
//!
//! Invariant: however often it is asked, each backend is asked at most once in [`FRESH`], and no answer waits longer
//! than [`PATIENCE`].
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

/// How long an answer is good for.
const FRESH: Duration = Duration::from_secs(1);
/// For one ping.
const PATIENCE: Duration = Duration::from_millis(1500);

/// How one backend is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Backend {
    /// Which.
    pub name: &'static str,
    /// Whether it does what serving needs.
    pub up: bool,
    /// Why not, and what to mend, where it said so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
    /// It answers and does not serve, which does not mend itself: a full disk, a right that is missing.
    #[serde(skip)]
    pub unable: bool,
}

/// How they all are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Backends {
    /// Without it nobody can connect.
    pub sql: Backend,
    /// Without them nobody can join a lesson.
    pub keys: Backend,
    /// While it is away events wait, and the node stays ready; where it is unable it is not.
    pub bus: Backend,
    /// Keys of tokens: without any, nobody but guests can be let in.
    pub identity: Backend,
}

/// The body of `/readyz`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Readiness {
    /// Whether new connections are welcome.
    pub ready: bool,
    /// Whether this node shuts down.
    pub draining: bool,
    /// Each of them.
    pub backends: Backends,
}

/// Asks the backends.
pub struct Health {
    store: Arc<dyn Store>,
    kv: Arc<dyn LessonKeys>,
    bus: Arc<dyn Bus>,
    draining: Arc<AtomicBool>,
    identity: Option<Arc<Keyring>>,
    lease: Option<(watch::Receiver<Lease>, Duration)>,
    last: Mutex<Option<(Instant, Backends)>>,
}

impl Health {
    /// Of these backends; `draining` is set by whoever shuts the node down.
    #[must_use]
    pub fn new(store: Arc<dyn Store>, kv: Arc<dyn LessonKeys>, bus: Arc<dyn Bus>, draining: Arc<AtomicBool>) -> Self {
        Self { store, kv, bus, draining, identity: None, lease: None, last: Mutex::default() }
    }

    /// Also not ready while these keys let nobody in.
    #[must_use]
    pub fn with_identity(self, keyring: Arc<Keyring>) -> Self {
        Self { identity: Some(keyring), ..self }
    }

    /// Asks SQL for a write under this lease: a database that is full or read-only answers a ping.
    #[must_use]
    pub fn with_lease(self, lease: watch::Receiver<Lease>, ttl: Duration) -> Self {
        Self { lease: Some((lease, ttl)), ..self }
    }

    /// How it is now, or was a moment ago.
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

    async fn backends(&self) -> Backends {
        // Held while pinging: who asks meanwhile gets the same answer.
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
        let backends = Backends { sql, keys, bus, identity };
        *last = Some((Instant::now(), backends.clone()));
        backends
    }
}

async fn asked<E: std::fmt::Display>(name: &'static str, ping: impl Future<Output = Result<(), E>>) -> Backend {
    let problem = match tokio::time::timeout(PATIENCE, ping).await {
        Ok(Ok(())) => None,
        Ok(Err(error)) => Some(error.to_string()),
        Err(_) => Some(format!("no answer within {PATIENCE:?}")),
    };
    if let Some(problem) = &problem {
        tracing::debug!(backend = name, problem, "a backend is not ready");
    }
    Backend { name, up: problem.is_none(), problem, unable: false }
}
