//! Vacuums the outbox. A queue leaves dead index entries at its front, and each read steps over them (14 ms after
//! 600,000 rows); autovacuum runs only once a minute.
use std::time::Duration;

use tokio::time::Instant;

use super::super::connect::Dedicated;

const VACUUM: &str = "vacuum (skip_locked, truncate off) outbox";
/// The rows that are deleted between two vacuums. So a read stays below 2 ms, and a vacuum takes some 20 ms.
const AFTER: usize = 50_000;
/// A vacuum that takes longer than this runs half as often the next time, down to a limit.
const SLOW: Duration = Duration::from_millis(200);
const AT_LAST: usize = 1_600_000;
/// How long this process waits for a vacuum. This is longer than the server's own limit, so that a slow vacuum ends the
/// statement and not the connection.
const LIMIT: Duration = Duration::from_secs(3);

pub(super) struct Vacuum {
    /// The rows that were deleted since the last vacuum, and the number at which the next one is due.
    deleted: usize,
    due_after: usize,
}

impl Default for Vacuum {
    fn default() -> Self {
        Self { deleted: 0, due_after: AFTER }
    }
}

impl Vacuum {
    /// Records that this many more rows were deleted, and vacuums if that is due. If it fails, autovacuum does the
    /// work.
    pub(super) async fn deleted(&mut self, connection: &Dedicated, rows: usize) {
        self.deleted += rows;
        if self.deleted < self.due_after {
            return;
        }
        self.deleted = 0;
        let since = Instant::now();
        if let Err(error) = connection.run(LIMIT, VACUUM).await {
            tracing::debug!(%error, "the outbox is left to autovacuum");
        }
        // A transaction that was left open keeps the rows in place, and every vacuum steps over all of them without
        // effect.
        let slow = since.elapsed() > SLOW;
        self.due_after = if slow { (2 * self.due_after).min(AT_LAST) } else { AFTER };
    }
}
