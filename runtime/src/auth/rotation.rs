//! One issuer's keys while they change. The keys are renewed on a schedule, and when a token names a key that is not
//! known yet.
//!
//! Invariant: clients cause no more loads for an issuer than its [`Budget`] allows, even if they invent many tokens or
//! close many connections. The loaded keys stay in use while a load runs and when a load fails.
use std::{sync::Arc, time::Duration};

use parking_lot::{Mutex, RwLock};
use tokio::{sync::watch, time::Instant};

use super::{
    AuthError,
    jwks::{self, JwksError, Key, Location},
    lookup::{Budget, Lookup},
    token::Unchecked,
};
use crate::http_client::Client;

/// An issuer of tokens.
pub(super) struct Issuer {
    pub(super) name: Box<str>,
    pub(super) location: Location,
    keys: RwLock<Vec<Key>>,
    loads: Mutex<Loads>,
    /// A lock that is held while a file is read.
    reading: Arc<tokio::sync::Mutex<()>>,
}

/// The loads that tokens cause.
struct Loads {
    budget: Budget,
    /// The last load. When the load is over, the channel says whether it succeeded.
    last: Option<watch::Receiver<Option<bool>>>,
}

impl Issuer {
    pub(super) fn new(name: &str, location: Location) -> Self {
        let loads = Mutex::new(Loads { budget: Budget::new(), last: None });
        Self { name: name.into(), location, keys: RwLock::default(), loads, reading: Arc::default() }
    }

    /// Checks a token's signature with the key that it names.
    pub(super) fn check(&self, token: &Unchecked<'_>) -> Result<(), AuthError> {
        // A token that uses a public key as an HMAC secret is an attack, not a rotation.
        if token.algorithm == jsonwebtoken::Algorithm::HS256 {
            return Err(AuthError::Algorithm);
        }
        jwks::choose(&self.keys.read(), token)?.check(token)
    }

    /// Returns whether no load has succeeded yet.
    pub(super) fn is_empty(&self) -> bool {
        self.keys.read().is_empty()
    }

    /// Replaces the keys with the keys at the location.
    pub(super) async fn load(&self, client: &Client) -> Result<(), JwksError> {
        let began = Instant::now();
        let keys = jwks::load(&self.location, client, &self.reading).await?;
        *self.keys.write() = keys;
        self.loads.lock().budget.loaded(began);
        Ok(())
    }

    /// Loads the keys because of an unknown key, or waits for a load that is running.
    pub(super) async fn load_for_token(
        self: &Arc<Self>,
        client: &Client,
        cooldown: Duration,
        kid: Option<&str>,
    ) -> Lookup {
        let mut load = match self.start_load(client, cooldown, kid) {
            Ok(load) => load,
            Err(known) => return known,
        };
        // Requests and reads have a timeout, so this wait ends.
        match load.wait_for(Option::is_some).await.map(|succeeded| *succeeded) {
            Ok(Some(true)) => Lookup::Loaded,
            Ok(_) | Err(_) => Lookup::Unavailable,
        }
    }

    fn start_load(
        self: &Arc<Self>,
        client: &Client,
        cooldown: Duration,
        kid: Option<&str>,
    ) -> Result<watch::Receiver<Option<bool>>, Lookup> {
        let mut loads = self.loads.lock();
        if let Some(running) = loads.last.as_ref().filter(|last| last.borrow().is_none() && last.has_changed().is_ok())
        {
            return Ok(running.clone());
        }
        if !loads.budget.take(cooldown) {
            return Err(loads.budget.without_load(kid));
        }
        let (done, load) = watch::channel(None);
        loads.last = Some(load.clone());
        drop(loads);
        let (issuer, client) = (Arc::clone(self), client.clone());
        // The load runs in its own task, because a client that disconnects must not cancel the load that others wait
        // for.
        tokio::spawn(async move {
            let loaded = issuer.load(&client).await;
            if let Err(error) = &loaded {
                tracing::warn!(issuer = %issuer.name, from = %issuer.location, %error, "the keys are not renewed");
            }
            done.send_replace(Some(loaded.is_ok()));
        });
        Ok(load)
    }
}

/// Returns whether an unknown `kid` may cause a load. The name must have no quotes, no spaces and no `--`, and must not
/// be a path. Some issuers use base64 for names. In base64, a slash means a path only at the start of a name without
/// padding.
pub(super) fn plausible(kid: Option<&str>) -> bool {
    kid.is_some_and(|kid| {
        (1..=256).contains(&kid.len())
            && !kid.contains("..")
            && !kid.contains("--")
            && (!kid.starts_with('/') || kid.ends_with('='))
            && kid.bytes().all(|b| b.is_ascii_alphanumeric() || b"._~=+:-/".contains(&b))
    })
}
