//! What is known of the stream's end.
//!
//! Anybody who may publish on `live.>` can send a message with any sequence number. So only an answer of the stream itself
//! moves the position that clients are told, and from which rooms begin; a live event moves nothing but
//! [`Known::latest`], which is used while the stream does not answer.
use std::sync::{Mutex, MutexGuard, PoisonError};

use rollcall_schema::Offset;
use tokio::{sync::Notify, time::Instant};

use super::stream::State;
use crate::Position;

pub(super) struct Known {
    inner: Mutex<Inner>,
    doubt: Notify,
}

struct Inner {
    epoch: String,
    /// The last offset that the stream has told.
    told: u64,
    /// The highest offset of an event that was delivered.
    heard: u64,
    /// When the last two questions were asked that the stream has answered; the earlier one first.
    asked: [Instant; 2],
}

impl Known {
    pub(super) fn new(Position { epoch, offset }: Position) -> Self {
        let inner = Inner { epoch, told: offset.0, heard: offset.0, asked: [Instant::now(); 2] };
        Self { inner: Mutex::new(inner), doubt: Notify::new() }
    }

    /// The last position that the stream has told.
    pub(super) fn position(&self) -> Position {
        let inner = self.lock();
        Position { epoch: inner.epoch.clone(), offset: Offset(inner.told) }
    }

    /// The offset of [`Known::position`].
    pub(super) fn told(&self) -> u64 {
        self.lock().told
    }

    /// The last event that is known of, also where the stream has not confirmed it.
    pub(super) fn latest(&self) -> Position {
        let inner = self.lock();
        Position { epoch: inner.epoch.clone(), offset: Offset(inner.told.max(inner.heard)) }
    }

    /// When the last question was asked that the stream has answered, and the one before.
    pub(super) fn asked(&self) -> [Instant; 2] {
        self.lock().asked
    }

    /// An event was delivered.
    pub(super) fn hear(&self, offset: u64) {
        let mut inner = self.lock();
        inner.heard = inner.heard.max(offset);
    }

    /// Some events that were delivered are not in the stream.
    pub(super) fn forget_heard(&self) {
        let mut inner = self.lock();
        inner.heard = inner.told;
    }

    /// The connection is gone, and whatever was delivered on it counts as told: a server that was killed may have lost it.
    pub(super) fn trust_heard(&self) {
        let mut inner = self.lock();
        inner.told = inner.told.max(inner.heard);
    }

    /// The stream's answer to a question. False where it is another stream, or one that was put back.
    pub(super) fn learn(&self, state: &State, asked: Instant) -> bool {
        let mut inner = self.lock();
        if state.epoch != inner.epoch || state.last < inner.told {
            return false;
        }
        inner.told = state.last;
        inner.asked = [inner.asked[1], asked];
        true
    }

    /// Offsets go on from here, in this stream.
    pub(super) fn renew(&self, epoch: String, end: u64) {
        let mut inner = self.lock();
        let asked = inner.asked;
        *inner = Inner { epoch, told: end, heard: end, asked };
    }

    /// An event came that the stream has not confirmed yet, or that cannot be: the stream is to be asked.
    pub(super) fn doubt(&self) {
        self.doubt.notify_one();
    }

    /// Returns when the stream is to be asked.
    pub(super) async fn doubted(&self) {
        self.doubt.notified().await;
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
