//! A gateway with one more event: `cargo run -p rollcall --example raise_hand`
use std::process::ExitCode;

use rollcall_runtime::{Event, HandlerError, Publisher, Recipients, Resources, Session};
use rollcall_schema::{EntityType, Operation};
use serde::{Deserialize, Serialize};

const HAND: EntityType = EntityType::from_static("hand");
const RAISED: Operation = Operation::from_static("raised");

struct Deps {
    publisher: Publisher,
}

impl Deps {
    fn new(resources: &Resources) -> Self {
        Self { publisher: resources.publisher.clone() }
    }
}

#[derive(Deserialize)]
struct RaiseHand {
    hand: String,
}

#[derive(Serialize)]
struct HandRaised {
    by: Option<String>,
    hand: String,
}

async fn handle(deps: &Deps, session: &mut Session, request: RaiseHand) -> Result<HandRaised, HandlerError> {
    let raised = HandRaised { by: session.agent_id().map(ToString::to_string), hand: request.hand };
    deps.publisher.publish(session, Recipients::Lesson, Event::new(HAND, RAISED, &raised)).await?;
    Ok(raised)
}

pub(crate) fn main() -> ExitCode {
    rollcall_runtime::run(rollcall::table().on("raise_hand", Deps::new, handle))
}
