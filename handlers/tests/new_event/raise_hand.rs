//! handlers/src/raise_hand.rs
use rollcall_runtime::{HandlerError, Resources, Session};
use serde::{Deserialize, Serialize};

pub struct Deps;

impl Deps {
    pub fn new(_resources: &Resources) -> Self {
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
    let by = session.agent_id().map(ToString::to_string);
    Ok(HandRaised { by, hand: request.hand })
}
