//! Wakes the relay that publishes what a node has committed. The relay may be on any node.
//!
//! A relay of this process is woken in the process ([`rollcall_store`]). For shards that other nodes hold, the bus
//! carries a message without content, on a subject for each shard.
//!
//! Invariant: no event depends on a message, because a relay also reads once a second without one.
use std::{convert::Infallible, sync::Arc, time::Duration};

use futures_util::StreamExt;
use tokio::time::sleep;
use tracing::debug;
use uuid::Uuid;

use rollcall_bus::Bus;
use rollcall_store::Store;

/// The shortest time between two messages about the same shard.
const PAUSE: Duration = Duration::from_millis(10);
/// The pause before another attempt to listen.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// The task that wakes other nodes' relays, and listens for messages to this node's relay.
pub struct RelayWakes {
    /// The store in which rows are committed and this node's relay waits.
    pub store: Arc<dyn Store>,
    /// The bus that reaches other nodes.
    pub bus: Arc<dyn Bus>,
    /// The installation, because nodes of other installations may use the same bus.
    pub installation: Uuid,
}

impl RelayWakes {
    /// Sends and listens until the task is dropped.
    pub async fn run(self) {
        if !self.store.shared() {
            return std::future::pending().await;
        }
        tokio::join!(self.tell(), self.listen());
    }

    async fn tell(&self) -> Infallible {
        loop {
            let shards = self.store.rows_for_others().await;
            self.bus.wake_relays(self.installation, shards).await;
            sleep(PAUSE).await;
        }
    }

    async fn listen(&self) -> Infallible {
        let mut held = self.store.held_shards();
        loop {
            let shards = *held.borrow_and_update();
            match self.bus.relay_wakes(self.installation, shards).await {
                Ok(mut wakes) => loop {
                    tokio::select! {
                        woken = wakes.next() => match woken {
                            Some(shards) => self.store.wake_relay(shards),
                            // The connection was given up.
                            None => {
                                sleep(RETRY_AFTER).await;
                                break;
                            }
                        },
                        // An error is not possible, because the store has the sender.
                        _ = held.changed() => break,
                    }
                },
                Err(error) => {
                    debug!(%error, "this node's relay looks by itself for what other nodes commit");
                    sleep(RETRY_AFTER).await;
                }
            }
        }
    }
}
