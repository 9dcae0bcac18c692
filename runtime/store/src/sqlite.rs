//! The store of one node: an SQLite file, through rusqlite.
//!
//! Invariant: at most one process serves a file. Only `register` takes the lock for this, so `migrate`, `load` and
//! people with the sqlite3 tool can work beside a serving process.
//!
//! A write that was answered survives the death of the process, even by kill -9, because the kernel has it in the
//! write-ahead log (`synchronous = normal`). While there are writes, the log is synced four times a second
//! ([`db_thread`]). So a loss of power may cost the writes of the last quarter of a second, but never damages the file.
mod agent_states;
mod db_thread;
mod erasure;
mod fence;
mod file;
mod history;
mod ids;
mod kicks;
mod lease;
mod lesson_joins;
mod load;
mod migrate;
mod outbox;
mod overview;
mod queries;
mod recovery;
mod removals;
mod restored;
mod rows;
mod session_end;
mod sessions;
mod stale_fields;
mod store;
mod webhook;

pub use store::SqliteStore;
