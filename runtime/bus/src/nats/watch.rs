//! Asks the stream where it is, so that what arrives can be checked and a stream that was deleted, made anew or put back is
//! noticed while the connection lives.
//!
//! Invariant: the questions are bounded in rate, whatever arrives and however many rooms there are. What an answer means is
//! the live connection's and the delivery's business.
use std::{sync::Arc, time::Duration};

use tokio::time::{sleep, timeout};

use super::{known::Known, subscriptions::Subscriptions};

/// Between two questions while events arrive.
const PACE: Duration = Duration::from_millis(50);
/// Between two questions while none does.
const IDLE: Duration = Duration::from_secs(2);

/// See the module.
pub(super) struct Watch {
    pub(super) rooms: Arc<Subscriptions>,
    pub(super) known: Arc<Known>,
}

impl Watch {
    /// Asks until it is dropped.
    pub(super) async fn run(self) {
        loop {
            // Either is a reason to ask.
            let _ = timeout(IDLE, self.known.doubted()).await;
            // An answer is learned where it arrives; without one, the connection's end is noticed elsewhere.
            let _ = self.rooms.round().await;
            sleep(PACE).await;
        }
    }
}
