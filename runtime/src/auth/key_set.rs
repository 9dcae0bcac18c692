//! The keys and rules that tokens are checked against: keys by issuer, audiences, times.
//!
//! Invariant: the tokens of an issuer with a JWKS are checked only with that issuer's keys. The tokens of every other
//! issuer are checked with the shared secret if there is one. So no issuer's key is ever accepted for another issuer's
//! tokens.
use std::{sync::Arc, time::Duration};

use rollcall_schema::Audience;

use super::{
    AuthError, Claims,
    jwks::{Key, Location},
    rotation::{Issuer, plausible},
    token::{Rules, Unchecked},
};
use rollcall_base::Secret;

/// Where the keys come from, and what else is checked in a token.
#[derive(Clone, Debug)]
pub struct Sources {
    /// The shared secret.
    pub hs256: Option<Secret>,
    /// The previous secret, accepted while the secret is being replaced.
    pub hs256_previous: Option<Secret>,
    /// The issuers and the locations of their JWKS. Each issuer appears once.
    pub jwks: Vec<(String, Location)>,
    /// The audiences that are accepted. If the list is empty, any audience is accepted.
    pub audiences: Vec<Audience>,
    /// The time between two scheduled loads of a JWKS.
    pub refresh: Duration,
    /// The average time between two loads that tokens with unknown keys cause.
    pub cooldown: Duration,
    /// How far an issuer's clock may be ahead of the gateway's.
    pub leeway: Duration,
}

impl Sources {
    /// Returns sources with only this secret and the default settings.
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

/// The keys and the rules for tokens.
pub struct KeySet {
    pub(super) issuers: Box<[Arc<Issuer>]>,
    /// The secret, then the previous secret.
    shared: Box<[Key]>,
    audiences: Box<[Audience]>,
    pub(super) refresh: Duration,
    pub(super) cooldown: Duration,
    leeway: u64,
}

impl KeySet {
    /// Creates the set without the issuers' keys. An issuer that `before` has at the same location keeps the keys that
    /// it has loaded.
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

    /// Checks the signature with the secret or the previous secret.
    fn check_shared(&self, token: &Unchecked<'_>) -> Result<(), AuthError> {
        let (current, previous) = self.shared.split_first().ok_or(AuthError::Issuer)?;
        // A secret has no `kid`, so any `kid` is accepted. But a `kid` that is a path or a database query is an attack.
        if token.kid.is_some() && !plausible(token.kid.as_deref()) {
            return Err(AuthError::Key);
        }
        let verdict = current.check(token);
        if verdict.is_err() && previous.iter().any(|key| key.check(token).is_ok()) { Ok(()) } else { verdict }
    }
}
