//! The functions of a classroom gateway: one file for each named event, and the table that names them.
//!
//! Invariant: a handler knows the domain only. Sockets, frames, SQL text, NATS and Redis are the runtime's.
pub mod connect;
pub mod disconnect;
pub mod join_lesson;
pub mod refresh;

use rollcall_runtime::{Pools, Table};

/// The table: each event by its name on the wire, with the dependencies that its handler asks for. A new event is one
/// file and one line here.
#[must_use]
pub fn table(pools: &Pools) -> Table {
    Table::new((connect::Deps::of(pools), connect::handle), (disconnect::Deps::of(pools), disconnect::handle))
        .on("join_lesson", join_lesson::Deps::of(pools), join_lesson::handle)
        .on("refresh", refresh::Deps::of(pools), refresh::handle)
}
