//! A gateway with one more event: `cargo run -p rollcall --example raise_hand`
use std::process::ExitCode;

use rollcall_runtime::{HandlerError, Resources, Session, Table};
use serde::{Deserialize, Serialize};

struct Deps;

#[derive(Deserialize)]
struct RaiseHand {
    hand: String,
}

#[derive(Serialize)]
struct HandRaised {
    by: Option<String>,
    hand: String,
}

async fn handle(_deps: &Deps, session: &mut Session, request: RaiseHand) -> Result<HandRaised, HandlerError> {
    let by = session.agent_id().map(ToString::to_string);
    Ok(HandRaised { by, hand: request.hand })
}

fn table(resources: &Resources) -> Table {
    rollcall::table(resources).on("raise_hand", Deps, handle)
}

pub(crate) fn main() -> ExitCode {
    rollcall_runtime::run(table)
}
