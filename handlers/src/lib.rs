//! The handlers of a classroom gateway: one file for each named event, and the table that names them.
//!
//! Invariant: a handler knows the domain only. Sockets, frames, SQL text, NATS and Redis belong to the runtime.
pub mod admit;
pub mod connect;
pub mod disconnect;
pub mod enter_lesson;
pub mod join_lesson;
pub mod leave_lesson;
pub mod ping;
pub mod refresh;
pub mod resume;
pub mod roster;
pub mod set_state;

use rollcall_runtime::Table;

/// Returns the table. For each event it has the name in the protocol, the handler and the handler's dependencies. A new
/// event needs one file and one line here.
#[must_use]
pub fn table() -> Table {
    let connect = ("connect_request", connect::Deps::new, connect::handle);
    let disconnect = (disconnect::Deps::new, disconnect::handle);
    Table::new(connect, disconnect)
        .url_parameter("lesson_id")
        .outside(
            (admit::Deps::new, admit::handle),
            ("join_lesson", enter_lesson::Deps::new, enter_lesson::handle, enter_lesson::change),
        )
        .on("join_lesson", join_lesson::Deps::new, join_lesson::handle)
        .on("leave_lesson", leave_lesson::Deps::new, leave_lesson::handle)
        .on("ping", |_| (), ping::handle)
        .on("refresh", refresh::Deps::new, refresh::handle)
        .on("roster", roster::Deps::new, roster::handle)
        .on("set_state", set_state::Deps::new, set_state::handle)
}
