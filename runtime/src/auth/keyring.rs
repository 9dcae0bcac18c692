//! The keys that tokens are checked with, by issuer.
//!
//! Invariant: the tokens of an issuer with a JWKS are checked only with its keys; those of every other `iss` with the
//! shared secret, where there is one. So no issuer's key is ever accepted for another's tokens.
use std::{sync::Arc, time::Duration};

use rollcall_schema::Audience;

use super::{
    AuthError, Claims,
    jwks::{JwksError, Key, Location},
    lookup::Lookup,
    refusals::Refusals,
    rotation::{Issuer, plausible},
    token::{Rules, Unchecked},
    unix_now,
};
use crate::http_client::Client;
use rollcall_base::{Secret, log_limit::LogLimit};

/// The first pause after a load failed, and the longest; each further failure doubles it.
const FIRST_RETRY: Duration = Duration::from_secs(1);
const LAST_RETRY: Duration = Duration::from_secs(30);

/// How long one load may take: a connect that waits for it has 5 s in all, and needs time for its answer.
const LOAD_TIMEOUT: Duration = Duration::from_secs(3);

/// Where the keys come from, and what else tokens are checked against.
#[derive(Clone, Debug)]
pub struct Sources {
    /// The shared secret.
    pub hs256: Option<Secret>,
    /// The previous secret, accepted while the secret is being replaced.
    pub hs256_previous: Option<Secret>,
    /// Issuers and the locations of their JWKS, each issuer once.
    pub jwks: Vec<(String, Location)>,
    /// The audiences that are accepted; empty: any.
    pub audiences: Vec<Audience>,
    /// The time between two scheduled loads of a JWKS.
    pub refresh: Duration,
    /// The time between two loads that unknown keys cause, on average.
    pub cooldown: Duration,
    /// How far an issuer's clock may be ahead of ours.
    pub leeway: Duration,
}

impl Sources {
    /// Only this secret, with the defaults of the settings.
    #[must_use]
    pub fn from_secret(hs256: Secret) -> Self {
        Self {
            hs256: Some(hs256),
            hs256_previous: None,
            jwks: Vec::new(),
            audiences: Vec::new(),
            refresh: Duration::from_secs(300),
            cooldown: Duration::from_secs(60),
            leeway: Duration::from_secs(5),
        }
    }
}

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

/// Checks tokens.
pub struct Keyring {
    issuers: Box<[Arc<Issuer>]>,
    /// The secret, then the one before it.
    shared: Box<[Key]>,
    audiences: Box<[Audience]>,
    refresh: Duration,
    cooldown: Duration,
    leeway: u64,
    client: Client,
    refusals: Refusals,
    log: LogLimit,
}

impl Keyring {
    /// A keyring without the issuers' keys, which [`Keyring::load`] loads.
    #[must_use]
    pub fn new(sources: Sources) -> Self {
        let secrets = sources.hs256.iter().chain(&sources.hs256_previous);
        let issuer = |(name, location): &(String, Location)| Arc::new(Issuer::new(name, location.clone()));
        Self {
            issuers: sources.jwks.iter().map(issuer).collect(),
            shared: secrets.map(|secret| Key::shared(secret.reveal())).collect(),
            audiences: sources.audiences.into(),
            refresh: sources.refresh,
            cooldown: sources.cooldown,
            leeway: sources.leeway.as_secs(),
            client: Client::new().timeout(LOAD_TIMEOUT),
            refusals: Refusals::new(),
            log: LogLimit::new(),
        }
    }

    /// Loads every issuer's keys once; returns what failed. At the start a missing file is an error, but a server may
    /// be away for a while: [`Keyring::keep_fresh`] tries again.
    pub async fn load(&self) -> Vec<KeyringError> {
        let loads = self.issuers.iter().map(|issuer| self.load_issuer(issuer));
        futures_util::future::join_all(loads).await.into_iter().flatten().collect()
    }

    async fn load_issuer(&self, issuer: &Issuer) -> Option<KeyringError> {
        let error = issuer.load(&self.client).await.err()?;
        Some(KeyringError { issuer: issuer.name.to_string(), location: issuer.location.clone(), error })
    }

    /// Whether any token can be accepted: there is a secret, or the keys of an issuer were loaded once.
    #[must_use]
    pub fn is_usable(&self) -> bool {
        !self.shared.is_empty() || self.issuers.iter().any(|issuer| !issuer.is_empty())
    }

    /// Checks a token with the keys that are loaded.
    ///
    /// # Errors
    /// [`AuthError`]; [`AuthError::Key`] where a load of the issuer's keys might help, see [`Keyring::admit`].
    pub fn verify(&self, token: &str) -> Result<Claims, AuthError> {
        self.verify_at(token, unix_now())
    }

    pub(super) fn verify_at(&self, token: &str, now: u64) -> Result<Claims, AuthError> {
        self.check(&Unchecked::parse(token)?, now)
    }

    fn check(&self, token: &Unchecked<'_>, now: u64) -> Result<Claims, AuthError> {
        match self.issuer(&token.issuer) {
            Some(issuer) => issuer.check(token)?,
            None => self.check_shared(token)?,
        }
        token.claims(Rules { audiences: &self.audiences, leeway: self.leeway, now })
    }

    /// Checks with the secret, or with the previous one.
    fn check_shared(&self, token: &Unchecked<'_>) -> Result<(), AuthError> {
        let (current, previous) = self.shared.split_first().ok_or(AuthError::Issuer)?;
        // A secret has no `kid`, so any is accepted; but one that is a path or a query is an attack.
        if token.kid.is_some() && !plausible(token.kid.as_deref()) {
            return Err(AuthError::Key);
        }
        let verdict = current.check(token);
        if verdict.is_err() && previous.iter().any(|key| key.check(token).is_ok()) { Ok(()) } else { verdict }
    }

    /// Checks a token. Where it names a key that its issuer may have added since the last load, loads the issuer's keys
    /// first, as often as [`Sources::cooldown`] allows for all clients together.
    ///
    /// # Errors
    /// [`AuthError`]; [`AuthError::KeysUnavailable`] where the same token may be accepted later.
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

    /// Counts a client that needs a token and has none.
    #[must_use]
    pub fn refuse_missing(&self) -> AuthError {
        self.refusals.record(AuthError::Missing, None);
        AuthError::Missing
    }

    async fn look_up(&self, token: &Unchecked<'_>) -> Result<Claims, AuthError> {
        let verdict = self.check(token, unix_now());
        let Some(issuer) = self.issuer(&token.issuer) else { return verdict };
        // If a key without a `kid` was replaced, the old key does not match the signature.
        let renamed = verdict == Err(AuthError::Key) && plausible(token.kid.as_deref());
        let replaced = verdict == Err(AuthError::Signature) && token.kid.is_none();
        if renamed || replaced {
            return match issuer.load_for_token(&self.client, self.cooldown, token.kid.as_deref()).await {
                Lookup::Loaded => self.check(token, unix_now()),
                Lookup::Known => verdict,
                Lookup::Unavailable => Err(AuthError::KeysUnavailable),
            };
        }
        if verdict == Err(AuthError::Key) && issuer.is_empty() { Err(AuthError::KeysUnavailable) } else { verdict }
    }

    /// Loads the keys of every issuer at intervals, and soon after a failure. Never returns: the caller spawns it.
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
                        if let Some(held_back) = self.log.pass() {
                            tracing::warn!(%error, held_back, "the keys are not renewed");
                        }
                        let pause = retry;
                        retry = (retry * 2).min(LAST_RETRY);
                        pause
                    }
                };
            }
        });
        futures_util::future::join_all(loops).await;
        // There is no issuer.
        std::future::pending().await
    }

    fn issuer(&self, name: &str) -> Option<&Arc<Issuer>> {
        self.issuers.iter().find(|issuer| *issuer.name == *name)
    }
}
