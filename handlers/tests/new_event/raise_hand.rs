//! handlers/src/raise_hand.rs
use rollcall_runtime::{HandlerError, Resources, Session};
use serde::{Deserialize, Serialize};

pub struct Deps;

impl Deps {
    pub fn of(_pools: &Resources) -> Self {
        Self
    }
}

#[derive(Deserialize)]
pub struct RaiseHand {
    hand: String,
}

#[derive(Serialize)]
pub struct HandRaised {
    by: Option<String>,
    hand: String,
}

pub async fn handle(_deps: &Deps, session: &mut Session, request: RaiseHand) -> Result<HandRaised, HandlerError> {
    let by = session.presence.as_ref().map(|presence| presence.agent.to_string());
    Ok(HandRaised { by, hand: request.hand })
}
