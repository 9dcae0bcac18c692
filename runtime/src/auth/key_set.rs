//! What tokens are checked against at one time: keys by issuer, audiences, times.
//!
//! Invariant: the tokens of an issuer with a JWKS are checked only with its keys; those of every other `iss` with the
//! shared secret, where there is one. So no issuer's key is ever accepted for another's tokens.
use std::{sync::Arc, time::Duration};

use rollcall_schema::Audience;

use super::{
    AuthError, Claims,
    jwks::{Key, Location},
    rotation::{Issuer, plausible},
    token::{Rules, Unchecked},
};
use rollcall_base::Secret;

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
    /// Sources with only this secret, and the settings' defaults.
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

/// The keys, and the rules of tokens.
pub struct KeySet {
    pub(super) issuers: Box<[Arc<Issuer>]>,
    /// The secret, then the one before it.
    shared: Box<[Key]>,
    audiences: Box<[Audience]>,
    pub(super) refresh: Duration,
    pub(super) cooldown: Duration,
    leeway: u64,
}

impl KeySet {
    /// The set without the issuers' keys; but an issuer that `before` has at the same place keeps its keys, and what it has loaded.
    pub(super) fn new(sources: Sources, before: &[Arc<Issuer>]) -> Self {
        let issuer = |(name, location): &(String, Location)| {
            let known = before.iter().find(|issuer| *issuer.name == **name && issuer.location == *location);
            known.map_or_else(|| Arc::new(Issuer::new(name, location.clone())), Arc::clone)
        };
        let secrets = sources.hs256.iter().chain(&sources.hs256_previous);
        Self {
            issuers: sources.jwks.iter().map(issuer).collect(),
            shared: secrets.map(|secret| Key::shared(secret.reveal())).collect(),
            audiences: sources.audiences.into(),
            refresh: sources.refresh,
            cooldown: sources.cooldown,
            leeway: sources.leeway.as_secs(),
        }
    }

    pub(super) fn is_usable(&self) -> bool {
        !self.shared.is_empty() || self.issuers.iter().any(|issuer| !issuer.is_empty())
    }

    pub(super) fn issuer(&self, name: &str) -> Option<&Arc<Issuer>> {
        self.issuers.iter().find(|issuer| *issuer.name == *name)
    }

    pub(super) fn check(&self, token: &Unchecked<'_>, now: u64) -> Result<Claims, AuthError> {
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
}
