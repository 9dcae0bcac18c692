//! A key by which a node notices that the server has lost writes, because it was emptied, or a replica that lagged took
//! over.
//!
//! Invariant: each write of the node that must not be lost is followed by a write of its marker, with a higher number.
//! Servers replicate in order, so a server whose marker is at least the last confirmed one has every write before that.
//! A lower marker is not overwritten before the loss is noticed, even if an answer is lost.

use bb8_redis::redis::{ParsingError, Value, from_redis_value};
use parking_lot::Mutex;

use super::KeysError;

/// What a node knows of its marker on one server.
#[derive(Debug, Default)]
pub(super) struct Marker(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    /// The marker's key. `None` before the first probe.
    key: Option<String>,
    /// The highest number that was given to a write.
    drawn: u64,
    /// The highest number whose write was answered. `None` before the first answer.
    confirmed: Option<u64>,
    /// The `master_replid`, which a server creates when it takes over. `None` if INFO is not allowed.
    replication: Option<String>,
}

/// One write of the marker.
#[derive(Clone, Debug)]
pub(super) struct Mark {
    pub(super) key: String,
    pub(super) number: u64,
    /// If the server's marker is below this number or missing, writes were lost. `None` before the first write was
    /// answered.
    pub(super) least: Option<u64>,
}

/// The script's answer if the marker is below the least number.
const LOST: i64 = -1;

/// The script's answer.
#[derive(Debug)]
pub(super) struct Marked {
    /// 0 if no loss shows, or [`LOST`].
    pub(super) answer: i64,
    /// The replication's id, if it was asked for and the user may read it.
    replication: Option<String>,
}

impl Marked {
    pub(super) fn read(answer: Value) -> Result<Self, KeysError> {
        let read = from_redis_value(answer);
        let (answer, id): (i64, String) = read.map_err(|error: ParsingError| KeysError(error.to_string()))?;
        Ok(Self { answer, replication: Some(id).filter(|id| !id.is_empty()) })
    }
}

impl Marker {
    /// Returns the next write of the marker with this key. If the key has changed, the numbers start again.
    pub(super) fn next(&self, key: &str) -> Mark {
        let mut known = self.0.lock();
        if known.key.as_deref() != Some(key) {
            (known.key, known.confirmed, known.replication) = (Some(key.to_owned()), None, None);
        }
        known.draw(key)
    }

    /// Returns the next write, if there has been a probe.
    pub(super) fn again(&self) -> Option<Mark> {
        let mut known = self.0.lock();
        let key = known.key.clone()?;
        known.confirmed?;
        Some(known.draw(&key))
    }

    /// Records the answer to a write.
    pub(super) fn answered(&self, mark: &Mark, answer: i64) {
        let mut known = self.0.lock();
        if answer != LOST && known.key.as_ref() == Some(&mark.key) {
            known.confirmed = known.confirmed.max(Some(mark.number));
        }
    }

    /// Records the answer to a probe. Returns true if every write from before the last probe is still there.
    pub(super) fn probed(&self, mark: &Mark, Marked { answer, replication }: Marked) -> bool {
        let mut known = self.0.lock();
        let same = match (&known.replication, &replication) {
            (Some(before), Some(now)) => before == now,
            _ => true,
        };
        if replication.is_some() {
            known.replication = replication;
        }
        // The loss is noticed now, so the next write may overwrite the marker.
        known.confirmed = if answer == LOST { Some(0) } else { known.confirmed.max(Some(mark.number)) };
        same && answer != LOST && mark.least.is_some()
    }
}

impl Known {
    fn draw(&mut self, key: &str) -> Mark {
        self.drawn += 1;
        Mark { key: key.to_owned(), number: self.drawn, least: self.confirmed }
    }
}
