//! Checks tokens with the current set of keys, and keeps the keys fresh.
//!
//! Invariant: a set of keys is replaced as a whole between two checks of tokens. If an issuer is in both sets, its keys
//! stay in use.
use std::{sync::Arc, time::Duration};

use tokio::sync::watch;

use super::{
    AuthError, Claims,
    jwks::{JwksError, Location},
    key_set::{KeySet, Sources},
    lookup::Lookup,
    refusals::Refusals,
    rotation::{Issuer, plausible},
    token::Unchecked,
    unix_now,
};
use crate::http_client::{Client, egress::Egress};
use rollcall_base::log_limit::LogLimit;

/// The pause after the first failed load, and the longest pause. Each further failure doubles the pause.
const FIRST_RETRY: Duration = Duration::from_secs(1);
const LAST_RETRY: Duration = Duration::from_secs(30);

/// How long one load may take. A connect that waits for a load may take 5 s in total, and needs time for its answer.
const LOAD_TIMEOUT: Duration = Duration::from_secs(3);

/// Why an issuer's keys could not be loaded.
#[derive(Debug, thiserror::Error)]
#[error("the keys of issuer {issuer} at {location}: {error}")]
pub struct KeyringError {
    /// The issuer.
    pub issuer: String,
    /// The location of its JWKS.
    pub location: Location,
    /// The reason.
    pub error: JwksError,
}

/// Checks tokens with a set of keys.
pub struct Keyring {
    keys: watch::Sender<Arc<KeySet>>,
    client: Client,
    refusals: Refusals,
    log: LogLimit,
}

impl Keyring {
    /// Creates a keyring without the issuers' keys. [`Keyring::load`] loads them with requests that are sent as
    /// `egress` says.
    #[must_use]
    pub fn new(sources: Sources, egress: &Egress) -> Self {
        Self {
            keys: watch::Sender::new(Arc::new(KeySet::new(sources, &[]))),
            client: Client::new(egress).timeout(LOAD_TIMEOUT),
            refusals: Refusals::new(),
            log: LogLimit::new(),
        }
    }

    fn keys(&self) -> Arc<KeySet> {
        Arc::clone(&self.keys.borrow())
    }

    /// Loads every issuer's keys once, and returns the failures. At the start a missing file is an error, but a server
    /// may be away for a while: [`Keyring::keep_fresh`] tries again.
    pub async fn load(&self) -> Vec<KeyringError> {
        self.load_all(&self.keys()).await
    }

    /// Creates another set of keys for [`Keyring::replace`] and loads the keys of its issuers. Returns the set, and the
    /// failures as [`Keyring::load`] does.
    pub async fn prepare(&self, sources: Sources) -> (Arc<KeySet>, Vec<KeyringError>) {
        let keys = Arc::new(KeySet::new(sources, &self.keys().issuers));
        let errors = self.load_all(&keys).await;
        (keys, errors)
    }

    /// Checks tokens with these keys from now on. Existing sessions stay, even if their tokens would no longer be
    /// accepted.
    pub fn replace(&self, keys: Arc<KeySet>) {
        self.keys.send_replace(keys);
    }

    async fn load_all(&self, keys: &KeySet) -> Vec<KeyringError> {
        let loads = keys.issuers.iter().map(|issuer| self.load_issuer(issuer));
        futures_util::future::join_all(loads).await.into_iter().flatten().collect()
    }

    async fn load_issuer(&self, issuer: &Issuer) -> Option<KeyringError> {
        let error = issuer.load(&self.client).await.err()?;
        Some(KeyringError { issuer: issuer.name.to_string(), location: issuer.location.clone(), error })
    }

    /// Returns whether any token can be accepted: there is a secret, or the keys of an issuer were loaded once.
    #[must_use]
    pub fn is_usable(&self) -> bool {
        self.keys().is_usable()
    }

    /// Checks a token with the keys that are loaded.
    ///
    /// # Errors
    /// Returns an [`AuthError`] if the token is not accepted, and [`AuthError::Key`] if a load of the issuer's keys
    /// might help, as [`Keyring::admit`] does.
    pub fn verify(&self, token: &str) -> Result<Claims, AuthError> {
        self.verify_at(token, unix_now())
    }

    pub(super) fn verify_at(&self, token: &str, now: u64) -> Result<Claims, AuthError> {
        self.keys().check(&Unchecked::parse(token)?, now)
    }

    /// Checks a token. If the token names a key that its issuer may have added since the last load, this function first
    /// loads the issuer's keys, as often as [`Sources::cooldown`] allows for all clients together.
    ///
    /// # Errors
    /// Returns an [`AuthError`] if the token is not accepted, and [`AuthError::KeysUnavailable`] if the same token may
    /// be accepted later.
    pub async fn admit(&self, token: &str) -> Result<Claims, AuthError> {
        let parsed = Unchecked::parse(token);
        let verdict = match &parsed {
            Ok(token) => self.look_up(token).await,
            Err(error) => Err(*error),
        };
        if let Err(error) = verdict {
            self.refusals.record(error, parsed.as_ref().ok());
        }
        verdict
    }

    /// Counts a client that needs a token and sent none.
    #[must_use]
    pub fn refuse_missing(&self) -> AuthError {
        self.refusals.record(AuthError::Missing, None);
        AuthError::Missing
    }

    async fn look_up(&self, token: &Unchecked<'_>) -> Result<Claims, AuthError> {
        let keys = self.keys();
        let verdict = keys.check(token, unix_now());
        let Some(issuer) = keys.issuer(&token.issuer) else { return verdict };
        let renamed = verdict == Err(AuthError::Key) && plausible(token.kid.as_deref());
        // If a key was replaced by a key with the same name, or by a key without a name, the old key does not match the
        // signature.
        let replaced = verdict == Err(AuthError::Signature);
        if renamed || replaced {
            return match issuer.load_for_token(&self.client, keys.cooldown, token.kid.as_deref()).await {
                Lookup::Loaded => keys.check(token, unix_now()),
                Lookup::Known => verdict,
                // A wrong signature with a known key's name comes far more often from a forger than from a new key.
                Lookup::Unavailable if replaced && token.kid.is_some() => verdict,
                Lookup::Unavailable => Err(AuthError::KeysUnavailable),
            };
        }
        if verdict == Err(AuthError::Key) && issuer.is_empty() { Err(AuthError::KeysUnavailable) } else { verdict }
    }

    /// Loads the keys of every issuer at intervals, and soon after a failure. This function never returns, so the
    /// caller spawns it.
    pub async fn keep_fresh(&self) {
        let mut keys = self.keys.subscribe();
        loop {
            let current = Arc::clone(&keys.borrow_and_update());
            let loops = current.issuers.iter().map(|issuer| self.keep_loading(issuer, current.refresh));
            tokio::select! {
                _ = futures_util::future::join_all(loops), if !current.issuers.is_empty() => {}
                // This cannot fail, because the channel's sender is a field of this keyring.
                _ = keys.changed() => {}
            }
        }
    }

    async fn keep_loading(&self, issuer: &Issuer, refresh: Duration) {
        let mut retry = FIRST_RETRY;
        let mut pause = if issuer.is_empty() { retry } else { refresh };
        loop {
            tokio::time::sleep(pause).await;
            pause = match self.load_issuer(issuer).await {
                None => {
                    retry = FIRST_RETRY;
                    refresh
                }
                Some(error) => {
                    if let Some(held_back) = self.log.pass() {
                        tracing::warn!(%error, held_back, "the keys are not renewed");
                    }
                    let pause = retry;
                    retry = (retry * 2).min(LAST_RETRY);
                    pause
                }
            };
        }
    }
}
