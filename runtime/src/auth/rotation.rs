//! An issuer's keys as they change: renewed on a schedule, and when a token names a key that is not known yet.
//!
//! Invariant: strangers cause as many loads for an issuer as its [`Budget`] allows, however many tokens they make up and
//! however many connections they break off; the keys at hand stay in use while a load runs and when it fails.
use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock},
    time::Duration,
};

use tokio::{sync::watch, time::Instant};

use super::{
    AuthError,
    jwks::{self, JwksError, Key, Location},
    lookup::{Budget, Lookup},
    token::Unchecked,
};
use crate::http_client::Client;

/// One issuer of tokens.
pub(super) struct Issuer {
    pub(super) name: Box<str>,
    pub(super) location: Location,
    keys: RwLock<Vec<Key>>,
    loads: Mutex<Loads>,
}

/// Loads that tokens cause.
struct Loads {
    budget: Budget,
    /// Whether the last one succeeded, once it is over.
    last: Option<watch::Receiver<Option<bool>>>,
}

impl Issuer {
    pub(super) fn new(name: &str, location: Location) -> Self {
        let loads = Mutex::new(Loads { budget: Budget::new(), last: None });
        Self { name: name.into(), location, keys: RwLock::default(), loads }
    }

    /// Checks a token's signature by the key that it names.
    pub(super) fn check(&self, token: &Unchecked<'_>) -> Result<(), AuthError> {
        // A public key taken for an HMAC secret: an attack, not a rotation.
        if token.algorithm == jsonwebtoken::Algorithm::HS256 {
            return Err(AuthError::Algorithm);
        }
        jwks::choose(&self.keys.read().unwrap_or_else(PoisonError::into_inner), token)?.check(token)
    }

    /// Whether no load has succeeded yet.
    pub(super) fn is_empty(&self) -> bool {
        self.keys.read().unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    /// Replaces the keys by those of the location.
    pub(super) async fn load(&self, client: &Client) -> Result<(), JwksError> {
        let began = Instant::now();
        let keys = jwks::load(&self.location, client).await?;
        *self.keys.write().unwrap_or_else(PoisonError::into_inner) = keys;
        self.loads().budget.loaded(began);
        Ok(())
    }

    /// Loads because of an unknown key, or waits for a load under way.
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
        // The client has a timeout of its own, so this ends.
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
        let mut loads = self.loads();
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
        // A task of its own: a client that hangs up must not take the load of all others with it.
        tokio::spawn(async move {
            let loaded = issuer.load(&client).await;
            if let Err(error) = &loaded {
                tracing::warn!(issuer = %issuer.name, from = %issuer.location, %error, "keys not renewed");
            }
            done.send_replace(Some(loaded.is_ok()));
        });
        Ok(load)
    }

    fn loads(&self) -> MutexGuard<'_, Loads> {
        self.loads.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether an unknown `kid` may cause a load: names of keys have no quotes or spaces, and are no paths. Some issuers name
/// keys in base64, whose slashes only mean a path at the start, without padding.
pub(super) fn plausible(kid: Option<&str>) -> bool {
    kid.is_some_and(|kid| {
        (1..=256).contains(&kid.len())
            && !kid.contains("..")
            && !kid.contains("--")
            && (!kid.starts_with('/') || kid.ends_with('='))
            && kid.bytes().all(|b| b.is_ascii_alphanumeric() || b"._~=+:-/".contains(&b))
    })
}
