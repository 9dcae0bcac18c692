//! Brings live events into the stream's order, across rooms.
//!
//! The server sends them in that order on one connection, and the library spreads them over a channel for each room.
//! Reading channel after channel can take a later event before an earlier one; but whatever came before an event in
//! hand was put into its channel before it. So what is in hand is held until all channels have been read once more:
//! then nothing that came before it can be missing.
//!
//! Invariant: an event is passed on only when every one that came before it on the connection has been; where that
//! cannot be said (a new connection, a channel that ran over) the flow is broken instead.
use std::sync::Arc;

use super::{
    flow::Flow,
    rooms::{Ready, Rooms},
};
use crate::bus::Incoming;

/// Passes in a row before other tasks get their turn.
const PASSES: u32 = 8;

/// Collects for ever. It reads channels in one go, so it must run outside tokio's budget for a task, which would end a
/// reading early as if the channels were empty.
pub(super) async fn collect(ready: Arc<Ready>, rooms: Arc<Rooms>, flow: Arc<Flow>) {
    let mut held = Vec::new();
    tokio::task::unconstrained(async {
        loop {
            ready.rung().await;
            let mut passes = 0;
            while pass(&mut held, &rooms, &flow) {
                passes += 1;
                if passes % PASSES == 0 {
                    tokio::task::yield_now().await;
                }
            }
        }
    })
    .await
}

/// Reads all channels once and passes on what was in hand before. True where another pass is due.
fn pass(held: &mut Vec<Incoming>, rooms: &Rooms, flow: &Flow) -> bool {
    let settled = held.last().map(|event| event.offset);
    if !rooms.drain(held) {
        flow.break_off();
    }
    held.sort_unstable_by_key(|event| event.offset);
    let complete = held.partition_point(|event| Some(event.offset) <= settled);
    if !flow.push(held.drain(..complete)) {
        held.clear();
    }
    !held.is_empty()
}
