//! The store of one node: an SQLite file, through rusqlite.
//!
//! Invariant: at most one process serves a file. `register` takes the lock that says so, so `migrate`, `load` and
//! people with the sqlite3 tool work beside a serving process.
//!
//! What was answered survives the death of the process, kill -9 too: it is in the write-ahead log, in the kernel's
//! hands (`synchronous = normal`). The log is synced four times a second while there are writes ([`db_thread`]), so a loss
//! of power may cost the last quarter of a second, as a whole and in order, but never the file.
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
