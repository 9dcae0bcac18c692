//! An issuer's keys as they change: renewed on a schedule, and when a token names a key that is not known yet.
//!
//! Invariant: strangers cause at most one load in [`PAUSE`] for an issuer, however many tokens they make up and however
//! many connections they break off; the keys at hand stay in use while a load runs and when it fails.
use std::{
    sync::{Arc, Mutex, PoisonError, RwLock},
    time::Duration,
};

use tokio::{sync::watch, time::Instant};

use super::{
    AuthError,
    jwks::{self, JwksError, Key, Location},
    token::Unchecked,
};
use crate::http::client::Client;

/// Between two loads that tokens cause.
const PAUSE: Duration = Duration::from_secs(60);

/// One issuer of tokens.
pub(super) struct Issuer {
    pub(super) name: Box<str>,
    pub(super) location: Location,
    keys: RwLock<Vec<Key>>,
    asked: Mutex<Asked>,
}

/// The last load that a token caused.
#[derive(Default)]
struct Asked {
    at: Option<Instant>,
    /// Closed when that load is over.
    over: Option<watch::Receiver<()>>,
}

impl Issuer {
    pub(super) fn new(name: &str, location: Location) -> Self {
        Self { name: name.into(), location, keys: RwLock::default(), asked: Mutex::default() }
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
        let keys = jwks::load(&self.location, client).await?;
        *self.keys.write().unwrap_or_else(PoisonError::into_inner) = keys;
        Ok(())
    }

    /// Loads because of an unknown key, or waits for a load under way. False where it is too early for one.
    pub(super) async fn load_for_token(self: &Arc<Self>, client: &Client) -> bool {
        let Some(mut over) = self.ask(client) else { return false };
        // The sender sends nothing: that it is gone is the answer. The client has a timeout of its own.
        while over.changed().await.is_ok() {}
        true
    }

    fn ask(self: &Arc<Self>, client: &Client) -> Option<watch::Receiver<()>> {
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(over) = asked.over.as_ref().filter(|over| over.has_changed().is_ok()) {
            return Some(over.clone());
        }
        if asked.at.is_some_and(|at| at.elapsed() < PAUSE) {
            return None;
        }
        let (running, over) = watch::channel(());
        *asked = Asked { at: Some(Instant::now()), over: Some(over.clone()) };
        drop(asked);
        let (issuer, client) = (Arc::clone(self), client.clone());
        // A task of its own: a client that hangs up must not take the load of all others with it.
        tokio::spawn(async move {
            if let Err(error) = issuer.load(&client).await {
                tracing::warn!(issuer = %issuer.name, from = %issuer.location, %error, "keys not renewed");
            }
            drop(running);
        });
        Some(over)
    }
}

/// Whether an unknown `kid` may cause a load: names of keys have no slashes, quotes or spaces. Where an issuer's do have a
/// slash (base64), its next scheduled load brings them.
pub(super) fn plausible(kid: Option<&str>) -> bool {
    kid.is_some_and(|kid| {
        (1..=256).contains(&kid.len())
            && !kid.contains("..")
            && !kid.contains("--")
            && kid.bytes().all(|b| b.is_ascii_alphanumeric() || b"._~=+:-".contains(&b))
    })
}
