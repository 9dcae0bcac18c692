//! The results of a storm's faults that neither clients nor servers show.

use std::collections::BTreeSet;
use std::time::Instant;

use super::journal::Connection;
use super::primary::Loss;

/// The results of one fault or of several.
#[derive(Debug, Default)]
pub(super) struct Aftermath {
    /// Violations that only the thread that causes a fault can see.
    pub(super) violations: Vec<String>,
    /// The steps of the gateway's code at which a node was killed or stopped.
    pub(super) struck: BTreeSet<&'static str>,
    /// The names of the [`mishaps`](super::faults::mishaps) that happened.
    pub(super) mishaps: BTreeSet<&'static str>,
    /// What a failover of the database has lost.
    pub(super) loss: Loss,
    /// The nodes that ended, and when each did.
    pub(super) ends: Vec<(usize, Instant)>,
}

impl Aftermath {
    /// Adds the results of another fault.
    pub(super) fn add(&mut self, other: Self) {
        let Self { violations, struck, mishaps, loss, ends } = other;
        self.violations.extend(violations);
        self.struck.extend(struck);
        self.mishaps.extend(mishaps);
        self.loss.sessions.extend(loss.sessions);
        self.loss.gone.extend(loss.gone);
        self.loss.fields.extend(loss.fields);
        self.loss.doubtful = self.loss.doubtful.max(loss.doubtful);
        self.ends.extend(ends);
    }

    /// Returns the sessions that no database and no node knows of any more: the failover lost all rows of the session,
    /// and the node of its last connection has ended since that connection entered, or no connection ever entered.
    pub(super) fn forgotten(&self, connections: &[Connection]) -> BTreeSet<i64> {
        let forgotten = |session: &i64| {
            let successes =
                connections.iter().filter_map(|connection| Some((connection, connection.success.as_ref()?)));
            let last =
                successes.filter(|(_, success)| success.session == *session).max_by_key(|(_, success)| success.at);
            last.is_none_or(|(connection, success)| self.has_ended(connection.node, success.at))
        };
        self.loss.gone.iter().copied().filter(forgotten).collect()
    }

    /// Returns whether no database and no node knows of a field in Redis any more: the failover lost each row that
    /// names the field, and the node of its connection has ended since that connection entered, or the connection never
    /// entered.
    pub(super) fn forgets_field(&self, field: &str, connections: &[Connection]) -> bool {
        let named = |(sid, lesson): &(&str, &str)| {
            let of_lesson = |kind| field.starts_with(&format!("lesson_{kind}_{lesson}: "));
            ["student", "teacher"].into_iter().any(of_lesson) && field.ends_with(&format!(" -> {sid}"))
        };
        let Some((sid, _)) = self.loss.fields.iter().filter_map(|lost| lost.split_once(' ')).find(named) else {
            return false;
        };
        let successes = connections.iter().filter_map(|connection| Some((connection, connection.success.as_ref()?)));
        let mut of_it = successes.filter(|(_, success)| success.sid == sid);
        of_it.next().is_none_or(|(connection, success)| self.has_ended(connection.node, success.at))
    }

    fn has_ended(&self, node: usize, since: Instant) -> bool {
        self.ends.iter().any(|(ended, at)| *ended == node && *at >= since)
    }
}
