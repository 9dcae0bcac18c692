//! A key by which a node notices that the server has lost writes: it was emptied, or a replica that lagged took over.
//!
//! Invariant: each write of the node that must not get lost is followed by one of its marker, with a higher number. A
//! server replicates in order: one whose marker is as high as the last that was confirmed has all that came before. A
//! lower marker is not written over before the loss is noticed, even if an answer gets lost.
use std::sync::{Mutex, MutexGuard, PoisonError};

use bb8_redis::redis::{ParsingError, Value, from_redis_value};

use super::KeysError;

/// What is known of the marker.
#[derive(Debug, Default)]
pub(super) struct Marker(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    /// The key; none before the first probe.
    key: Option<String>,
    /// The highest number that was drawn.
    drawn: u64,
    /// The highest number whose write was answered; none before the first.
    confirmed: Option<u64>,
    /// `master_replid`, which a server that takes over draws anew; none where INFO is not allowed.
    replication: Option<String>,
}

/// One write of the marker.
#[derive(Clone, Debug)]
pub(super) struct Mark {
    pub(super) key: String,
    pub(super) number: u64,
    /// A lower one than this, or no marker, shows a loss; none before the first write was answered.
    pub(super) least: Option<u64>,
}

/// What the script answers that found a marker lower than the least.
const LOST: i64 = -1;

/// What the script answers.
#[derive(Debug)]
pub(super) struct Marked {
    /// 1 where the marker was written, or [`LOST`].
    pub(super) answer: i64,
    /// The replication's id, where it was asked for and may be known.
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
    /// The next write of this key's. Another key than before is a new beginning.
    pub(super) fn next(&self, key: &str) -> Mark {
        let mut known = self.lock();
        if known.key.as_deref() != Some(key) {
            (known.key, known.confirmed, known.replication) = (Some(key.to_owned()), None, None);
        }
        known.draw(key)
    }

    /// The next write, where there has been a probe.
    pub(super) fn again(&self) -> Option<Mark> {
        let mut known = self.lock();
        let key = known.key.clone()?;
        known.confirmed?;
        Some(known.draw(&key))
    }

    /// Notes the answer to a write.
    pub(super) fn answered(&self, mark: &Mark, answer: i64) {
        let mut known = self.lock();
        if answer != LOST && known.key.as_ref() == Some(&mark.key) {
            known.confirmed = known.confirmed.max(Some(mark.number));
        }
    }

    /// Notes the answer to a probe. True if everything is there that was there at the probe before.
    pub(super) fn probed(&self, mark: &Mark, Marked { answer, replication }: Marked) -> bool {
        let mut known = self.lock();
        let same = match (&known.replication, &replication) {
            (Some(before), Some(now)) => before == now,
            _ => true,
        };
        if replication.is_some() {
            known.replication = replication;
        }
        // The loss is noticed now, so the next write may write over the marker.
        known.confirmed = if answer == LOST { Some(0) } else { known.confirmed.max(Some(mark.number)) };
        same && answer != LOST && mark.least.is_some()
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        // Its fields are whole after any panic.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    fn draw(&mut self, key: &str) -> Mark {
        self.drawn += 1;
        Mark { key: key.to_owned(), number: self.drawn, least: self.confirmed }
    }
}
