//! Asks the stream for its end, so that arriving events can be checked, and so that the node notices a stream that was
//! deleted, created again or put back while the connection lives.
//!
//! Invariant: the rate of the questions is bounded, however many events arrive and however many rooms there are. The
//! live connection and the feed writer handle the answers.
use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use tokio::time::{sleep, timeout};

use super::{stream_end::StreamEnd, subscriptions::Subscriptions};

/// The shortest time between two questions, while events arrive.
const MIN_INTERVAL: Duration = Duration::from_millis(50);
/// The shortest interval while connections follow the watermark, which does not pass an event before the stream has
/// confirmed the event. The interval is shorter than [`SETTLING`](super::sequence_tracker::SETTLING), so that no event
/// waits longer than that for the confirmation.
const MIN_INTERVAL_FOLLOWED: Duration = Duration::from_millis(20);
/// The time between two questions while no event arrives.
const IDLE_INTERVAL: Duration = Duration::from_secs(1);

/// The task that asks.
pub(super) struct EndPoller {
    pub(super) rooms: Arc<Subscriptions>,
    pub(super) stream_end: Arc<StreamEnd>,
}

impl EndPoller {
    /// Asks until this future is dropped.
    pub(super) async fn run(self) {
        loop {
            // A request and the end of the interval are both reasons to ask.
            let _ = timeout(IDLE_INTERVAL, self.stream_end.poll_requested()).await;
            // The live connection handles the answer, and notices if none comes.
            let _ = self.rooms.round_trip().await;
            let followed = self.stream_end.followers.load(Ordering::Relaxed) > 0;
            sleep(if followed { MIN_INTERVAL_FOLLOWED } else { MIN_INTERVAL }).await;
        }
    }
}
