//! CONNECT of Socket.IO without a classroom (PROTOCOL 11): checks who the client is. The client enters no classroom
//! until it joins a lesson ([`crate::enter_lesson`]).
use std::sync::Arc;

use rollcall_runtime::{
    ConnectError, Resources,
    auth::{Claims, Keyring},
    limits::{EventLimits, Payer, network::Subscriber},
};
use rollcall_schema::{SessionError, request::Token};

/// The dependencies of this handler.
pub struct Deps {
    keyring: Arc<Keyring>,
    rates: Arc<EventLimits>,
    guests: bool,
}

impl Deps {
    /// Takes the dependencies out of the resources.
    #[must_use]
    pub fn new(resources: &Resources) -> Self {
        let Resources { keyring, rates, guests, .. } = resources.clone();
        Self { keyring, rates, guests }
    }
}

/// Checks the client's token and returns its claims, or `None` for a guest, which brings no token.
///
/// # Errors
/// Returns `unauthenticated` or `too_many_requests`.
pub async fn handle(
    deps: &Deps,
    client: Option<Subscriber>,
    token: Option<Token>,
) -> Result<Option<Claims>, ConnectError> {
    let claims = match token {
        Some(token) => Some(deps.keyring.admit(token.as_str()).await?),
        None if deps.guests => None,
        None => return Err(deps.keyring.refuse_missing().into()),
    };
    let payer = match &claims {
        Some(claims) => Payer::User(&claims.user, &claims.audience),
        None => Payer::Guest(client),
    };
    deps.rates.connect(payer).map_err(|_| SessionError::TooManyRequests)?;
    Ok(claims)
}
