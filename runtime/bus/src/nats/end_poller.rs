//! Asks the stream where it is, so that arriving events can be checked, and so that a stream that was deleted, made
//! anew or put back is noticed while the connection lives.
//!
//! Invariant: the rate of the questions is bounded, whatever arrives and however many rooms there are. The live
//! connection and the feed writer handle the answers.
use std::{sync::Arc, time::Duration};

use tokio::time::{sleep, timeout};

use super::{stream_end::StreamEnd, subscriptions::Subscriptions};

/// Between two questions while events arrive.
const MIN_INTERVAL: Duration = Duration::from_millis(50);
/// Between two questions while no event arrives.
const IDLE_INTERVAL: Duration = Duration::from_secs(1);

/// See the module.
pub(super) struct EndPoller {
    pub(super) rooms: Arc<Subscriptions>,
    pub(super) stream_end: Arc<StreamEnd>,
}

impl EndPoller {
    /// Asks until it is dropped.
    pub(super) async fn run(self) {
        loop {
            // Both are reasons to ask.
            let _ = timeout(IDLE_INTERVAL, self.stream_end.poll_requested()).await;
            // The live connection handles the answer, and notices when none comes.
            let _ = self.rooms.round_trip().await;
            sleep(MIN_INTERVAL).await;
        }
    }
}
