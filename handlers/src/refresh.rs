//! `refresh`: a client gives its session a fresh token before the present token expires (PROTOCOL 2).
//!
//! Invariant: a session never becomes another user's. A fresh token that does not admit the session's classroom, or its
//! lesson, changes nothing.
use std::sync::Arc;

use rollcall_runtime::{
    HandlerError, Resources, Session,
    auth::{Claims, Keyring},
};
use rollcall_schema::{AckError, Refresh, ack::Refreshed};

/// The dependencies of this handler.
pub struct Deps {
    keyring: Arc<Keyring>,
}

impl Deps {
    /// Takes the dependencies out of the resources.
    #[must_use]
    pub fn new(resources: &Resources) -> Self {
        Self { keyring: Arc::clone(&resources.keyring) }
    }
}

/// Replaces the session's token.
///
/// # Errors
/// Returns `invalid access token` or `access token of another user`. A guest has no user yet, so join_lesson may give
/// it one.
pub async fn handle(deps: &Deps, session: &mut Session, request: Refresh) -> Result<Refreshed, HandlerError> {
    let user = verify(&deps.keyring, session, request.token.as_str()).await?;
    if session.expires().is_none() {
        return Err(AckError::AccessTokenOfAnotherUser.into());
    }
    let stays = session.lesson().is_none_or(|lesson| user.admits_lesson(lesson));
    if !stays || !user.admits_classroom(session.classroom()) {
        return Err(AckError::InvalidAccessToken.into());
    }
    let expires_at = user.expires;
    session.set_claims(user);
    Ok(Refreshed { expires_at })
}

/// Checks a token that comes after connect_request's: it must be valid, and if the session has a user, it must be that
/// user's.
pub(crate) async fn verify(keyring: &Keyring, session: &Session, token: &str) -> Result<Claims, HandlerError> {
    let user = keyring.admit(token).await?;
    let other = session.user().is_some_and(|(sub, audience)| sub != user.user || audience != user.audience);
    if other { Err(AckError::AccessTokenOfAnotherUser.into()) } else { Ok(user) }
}
