//! The functions of a classroom gateway: one file for each named event, and the table that names them.
//!
//! Invariant: a handler knows the domain only. Sockets, frames, SQL text, NATS and Redis are the runtime's.
pub mod connect;
pub mod disconnect;
pub mod join_lesson;
pub mod refresh;

use rollcall_runtime::{Resources, Table};

/// The table: each event by its name on the wire, with the dependencies that its handler asks for. A new event is one
/// file and one line here.
#[must_use]
pub fn table(resources: &Resources) -> Table {
    Table::new((connect::Deps::of(resources), connect::handle), (disconnect::Deps::of(resources), disconnect::handle))
        .on("join_lesson", join_lesson::Deps::of(resources), join_lesson::handle)
        .on("refresh", refresh::Deps::of(resources), refresh::handle)
}
