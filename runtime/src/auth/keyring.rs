//! All keys that tokens are checked with, by issuer.
//!
//! Invariant: an issuer that has a JWKS is served by that alone; every other `iss` by the shared secret, where there is
//! one. So no issuer's key ever vouches for another's tokens.
use std::{sync::Arc, time::Duration};

use rollcall_schema::Audience;

use super::{
    AuthError, Claims,
    jwks::{JwksError, Key, Location},
    rotation::{Issuer, plausible},
    token::Unchecked,
    unix_now,
};
use crate::{config::Secret, http::client::Client};

/// How soon a location that failed is asked again; doubled with every further failure.
const FIRST_RETRY: Duration = Duration::from_secs(5);

/// For one load: a connect that waits for it has 5 s in all, and is to be told what its token is worth.
const PATIENCE: Duration = Duration::from_secs(3);

/// What a keyring is made of.
#[derive(Clone, Debug)]
pub struct Sources {
    /// The shared secret.
    pub hs256: Option<Secret>,
    /// Issuers and their documents, each issuer once.
    pub jwks: Vec<(String, Location)>,
    /// The audiences that are let in; none named: any.
    pub audiences: Vec<Audience>,
    /// Between two scheduled loads of a document.
    pub refresh: Duration,
}

/// Why an issuer's keys could not be had.
#[derive(Debug, thiserror::Error)]
#[error("the keys of issuer {issuer} at {location}: {error}")]
pub struct KeyringError {
    /// Whose.
    pub issuer: String,
    /// From where.
    pub location: Location,
    /// Why.
    pub error: JwksError,
}

/// The keys.
pub struct Keyring {
    issuers: Box<[Arc<Issuer>]>,
    shared: Option<Key>,
    audiences: Box<[Audience]>,
    refresh: Duration,
    client: Client,
}

impl Keyring {
    /// A keyring whose documents are still to be loaded, by [`Keyring::load`].
    #[must_use]
    pub fn new(sources: Sources) -> Self {
        let issuer = |(name, location): &(String, Location)| Arc::new(Issuer::new(name, location.clone()));
        Self {
            issuers: sources.jwks.iter().map(issuer).collect(),
            shared: sources.hs256.as_ref().map(|secret| Key::shared(secret.reveal())),
            audiences: sources.audiences.into(),
            refresh: sources.refresh,
            client: Client::new().patience(PATIENCE),
        }
    }

    /// Loads every issuer's document once; returns what failed. At the start a missing file is a fault, but an address
    /// may be away for a while: [`Keyring::keep_fresh`] asks it again.
    pub async fn load(&self) -> Vec<KeyringError> {
        let loads = self.issuers.iter().map(|issuer| self.load_issuer(issuer));
        futures_util::future::join_all(loads).await.into_iter().flatten().collect()
    }

    async fn load_issuer(&self, issuer: &Issuer) -> Option<KeyringError> {
        let error = issuer.load(&self.client).await.err()?;
        Some(KeyringError { issuer: issuer.name.to_string(), location: issuer.location.clone(), error })
    }

    /// Checks a token by the keys at hand.
    ///
    /// # Errors
    /// [`AuthError`]; [`AuthError::Key`] where a load of the issuer's keys might help, see [`Keyring::admit`].
    pub fn verify(&self, token: &str) -> Result<Claims, AuthError> {
        self.verify_at(token, unix_now())
    }

    pub(super) fn verify_at(&self, token: &str, now: u64) -> Result<Claims, AuthError> {
        let token = Unchecked::parse(token)?;
        match self.issuer(&token.issuer) {
            Some(issuer) => issuer.check(&token)?,
            None => {
                let shared = self.shared.as_ref().ok_or(AuthError::Issuer)?;
                // It has no name, so any may stand there; but one that is a path or a query is an attack.
                if token.kid.is_some() && !plausible(token.kid.as_deref()) {
                    return Err(AuthError::Key);
                }
                shared.check(&token)?;
            }
        }
        token.claims(&self.audiences, now)
    }

    /// Checks a token, and where it names a key that its issuer may have made since, loads the issuer's keys first: at
    /// most once a minute for all clients together.
    ///
    /// # Errors
    /// [`AuthError`].
    pub async fn admit(&self, token: &str) -> Result<Claims, AuthError> {
        let verdict = self.verify(token);
        if verdict != Err(AuthError::Key) {
            return verdict;
        }
        let issuer = {
            let token = Unchecked::parse(token)?;
            self.issuer(&token.issuer).filter(|_| plausible(token.kid.as_deref()))
        };
        match issuer {
            Some(issuer) if issuer.load_for_token(&self.client).await => self.verify(token),
            _ => verdict,
        }
    }

    /// Loads every document again and again, soon after a failure. Never returns; to be spawned.
    pub async fn keep_fresh(&self) {
        let loops = self.issuers.iter().map(|issuer| async {
            let mut retry = FIRST_RETRY;
            let mut pause = if issuer.is_empty() { retry } else { self.refresh };
            loop {
                tokio::time::sleep(pause).await;
                pause = match self.load_issuer(issuer).await {
                    None => {
                        retry = FIRST_RETRY;
                        self.refresh
                    }
                    Some(error) => {
                        tracing::warn!(%error, "keys not renewed");
                        retry = (retry * 2).min(self.refresh.max(FIRST_RETRY));
                        retry
                    }
                };
            }
        });
        futures_util::future::join_all(loops).await;
    }

    fn issuer(&self, name: &str) -> Option<&Arc<Issuer>> {
        self.issuers.iter().find(|issuer| *issuer.name == *name)
    }
}
