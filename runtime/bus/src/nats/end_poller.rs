//! Asks the stream where it is, so that what arrives can be checked and a stream that was deleted, made anew or put back is
//! noticed while the connection lives.
//!
//! Invariant: the questions are bounded in rate, whatever arrives and however many rooms there are. What an answer means is
//! the live connection's and the delivery's business.
use std::{sync::Arc, time::Duration};

use tokio::time::{sleep, timeout};

use super::{stream_end::StreamEnd, subscriptions::Subscriptions};

/// Between two questions while events arrive.
const MIN_INTERVAL: Duration = Duration::from_millis(50);
/// Between two questions while none does.
const IDLE_INTERVAL: Duration = Duration::from_secs(2);

/// See the module.
pub(super) struct EndPoller {
    pub(super) rooms: Arc<Subscriptions>,
    pub(super) stream_end: Arc<StreamEnd>,
}

impl EndPoller {
    /// Asks until it is dropped.
    pub(super) async fn run(self) {
        loop {
            // Either is a reason to ask.
            let _ = timeout(IDLE_INTERVAL, self.stream_end.poll_requested()).await;
            // An answer is learned where it arrives; without one, the connection's end is noticed elsewhere.
            let _ = self.rooms.round_trip().await;
            sleep(MIN_INTERVAL).await;
        }
    }
}
