//! `refresh`: a fresh token for a session, before the one that it has ends (PROTOCOL 2).
//!
//! Invariant: a session never becomes another user's, and no token widens where it already is: a fresh one that could not
//! enter its classroom, or its lesson, changes nothing.
use std::sync::Arc;

use rollcall_runtime::{
    HandlerError, Resources, Session,
    auth::{Claims, Keyring},
};
use rollcall_schema::{AckError, Refresh, ack::Refreshed};

/// What refresh needs.
pub struct Deps {
    keyring: Arc<Keyring>,
}

impl Deps {
    /// Picks it out of the resources.
    #[must_use]
    pub fn of(resources: &Resources) -> Self {
        Self { keyring: Arc::clone(&resources.keyring) }
    }
}

/// Replaces the session's token.
///
/// # Errors
/// `invalid access token`, `access token of another user`. A guest is nobody yet, and becomes somebody by join_lesson.
pub async fn handle(deps: &Deps, session: &mut Session, request: Refresh) -> Result<Refreshed, HandlerError> {
    let user = fresh(&deps.keyring, session, request.token.as_str()).await?;
    if session.expires().is_none() {
        return Err(AckError::AccessTokenOfAnotherUser.into());
    }
    let stays = session.place.as_ref().is_none_or(|place| user.admits_lesson(&place.lesson));
    if !stays || !user.admits_classroom(session.classroom) {
        return Err(AckError::InvalidAccessToken.into());
    }
    let expires_at = user.expires;
    session.hold(user);
    Ok(Refreshed { expires_at })
}

/// A later token than connect_request's: it must hold, and be the session's own user's, if there is one.
pub(crate) async fn fresh(keyring: &Keyring, session: &Session, token: &str) -> Result<Claims, HandlerError> {
    let user = keyring.admit(token).await?;
    let other = session.user().is_some_and(|(sub, audience)| sub != user.user || audience != user.audience);
    if other { Err(AckError::AccessTokenOfAnotherUser.into()) } else { Ok(user) }
}
