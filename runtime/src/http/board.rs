//! The state of the nodes for all consoles. It is read once a second while a console is open.
//!
//! Invariant: there is one reader for all consoles. A console that has not taken the last reading causes no new
//! reading, and while no console is open nothing is read.
use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use rollcall_schema::NodeId;
use serde::Serialize;
use serde_json::value::RawValue;
use tokio::{
    sync::{Notify, watch},
    time::{Instant, sleep_until},
};

use crate::{
    http::health::{Backend, Health},
    statistics::Statistics,
};
use rollcall_presence::outbox_gauges::OutboxGauges;
use rollcall_store::{Lease, NodeReport, Store};

/// The time between two readings.
const EVERY: Duration = Duration::from_secs(1);
/// After how many readings the backends are asked. They are asked less often, because asking the database means a
/// write.
const ASK_EVERY: u32 = 5;

/// The sources of the board.
pub struct Sources {
    /// The store with the reports of all nodes.
    pub store: Arc<dyn Store>,
    /// Measures the outbox.
    pub outbox: OutboxGauges,
    /// The state of this node's backends.
    pub health: Arc<Health>,
    /// This node's own report.
    pub statistics: Statistics,
    /// This node's lease, which has the node's id.
    pub lease: watch::Receiver<Lease>,
}

/// The board. It is cheap to clone.
#[derive(Clone, Default)]
pub struct Board {
    latest: watch::Sender<Bytes>,
    wanted: Arc<Notify>,
}

/// A console's view of the board.
pub(super) struct Look {
    latest: watch::Receiver<Bytes>,
    wanted: Arc<Notify>,
}

impl Look {
    /// Returns the next event, or `None` when the board no longer exists.
    pub(super) async fn next(&mut self) -> Option<Bytes> {
        self.wanted.notify_one();
        self.latest.changed().await.ok()?;
        Some(self.latest.borrow_and_update().clone())
    }
}

#[derive(Serialize)]
struct Event<'a> {
    /// The time in milliseconds since 1970.
    at: u64,
    /// The node that answers.
    node_id: NodeId,
    nodes: Vec<Node>,
    /// Why the data of the other nodes is old.
    problem: Option<&'a str>,
    ready: bool,
    backends: &'a [Backend],
}

#[derive(Serialize)]
struct Node {
    node_id: NodeId,
    label: String,
    alive: bool,
    lease_left_ms: u64,
    /// The age of the statistics.
    age_ms: Option<u64>,
    statistics: Option<Box<RawValue>>,
}

impl Board {
    pub(super) fn look(&self) -> Look {
        Look { latest: self.latest.subscribe(), wanted: Arc::clone(&self.wanted) }
    }

    /// Reads while a console asks. This function never returns, so the caller spawns it.
    pub async fn run(self, sources: Sources) {
        let (mut ready, mut backends, mut count) = (false, Vec::new(), 0_u32);
        // The last reports, which are shown while the database is away.
        let (mut reports, mut read_at) = (Vec::new(), Instant::now());
        let mut next = Instant::now();
        loop {
            self.wanted.notified().await;
            sleep_until(next).await;
            next = Instant::now() + EVERY;
            if count.is_multiple_of(ASK_EVERY) {
                sources.outbox.measure().await;
                let readiness = sources.health.readiness().await;
                let states = readiness.backends;
                (ready, backends) = (readiness.ready, vec![states.sql, states.keys, states.bus, states.identity]);
            }
            count = count.wrapping_add(1);
            let problem = match sources.store.reports().await {
                Ok(read) => {
                    (reports, read_at) = (read, Instant::now());
                    None
                }
                Err(error) => {
                    tracing::debug!(%error, "the console shows other nodes as they were");
                    Some("the database is away: other nodes are shown as they were")
                }
            };
            let node_id = sources.lease.borrow().node;
            let own = sources.statistics.read();
            let nodes = reports.iter().map(|report| node(report, (report.node_id == node_id).then_some(&own), read_at));
            let at = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            let event = Event { at: millis(at), node_id, nodes: nodes.collect(), problem, ready, backends: &backends };
            let json = serde_json::to_string(&event).expect("texts and numbers are JSON");
            self.latest.send_replace(format!("data: {json}\n\n").into());
        }
    }
}

/// Returns a node of the event. `own` is the current statistics if the report is of this node.
fn node(report: &NodeReport, own: Option<&String>, read_at: Instant) -> Node {
    let since = read_at.elapsed();
    let (text, age) = match (own, &report.statistics) {
        (Some(own), _) => (Some(own), Some(Duration::ZERO)),
        (None, Some((text, age))) => (Some(text), Some(*age + since)),
        (None, None) => (None, None),
    };
    Node {
        node_id: report.node_id,
        label: report.label.clone(),
        alive: report.alive,
        lease_left_ms: millis(report.lease_left.saturating_sub(since)),
        age_ms: age.map(millis),
        // Another version of the gateway may have written the text.
        statistics: text.and_then(|text| RawValue::from_string(text.clone()).ok()),
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
