//! What this node knows of a cluster. When a call finds that the cluster has changed, the topology is read again.
//!
//! Invariant: the cluster is read by one task at a time, with a pause in between, however many calls fail.
use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures_util::future::join_all;
use parking_lot::Mutex;
use tokio::time::{Instant, timeout};
use tracing::{info, warn};

use super::{
    map::{Map, Master},
    view::View,
};
use crate::{
    address::Endpoint,
    dial::{ConnectError, Dialer},
};

/// How long a node may take to connect and to give its view.
const ANSWER: Duration = Duration::from_millis(400);
const PAUSE: Duration = Duration::from_millis(200);

/// The topology of a cluster.
pub(super) struct Topology {
    dialer: Arc<Dialer>,
    map: Mutex<Arc<Map>>,
    /// Nodes to which other nodes have redirected commands, and that are not masters in the map yet.
    redirected: Mutex<HashMap<Endpoint, Arc<Master>>>,
    /// When the cluster was last read.
    looked: tokio::sync::Mutex<Option<Instant>>,
    /// Whether slots were moved from one master to another.
    moved: AtomicBool,
}

impl Topology {
    /// Reads the topology once.
    pub(super) async fn of(dialer: Arc<Dialer>) -> Result<Self, ConnectError> {
        let this = Self {
            dialer,
            map: Mutex::default(),
            redirected: Mutex::default(),
            looked: tokio::sync::Mutex::default(),
            moved: AtomicBool::new(false),
        };
        let view = this.view().await?;
        this.install(&view);
        Ok(this)
    }

    pub(super) fn map(&self) -> Arc<Map> {
        Arc::clone(&self.map.lock())
    }

    /// Returns the node to which another node has redirected a command.
    pub(super) fn at(&self, endpoint: &Endpoint) -> Arc<Master> {
        let map = self.map();
        if let Some((master, _)) = map.masters.iter().find(|(master, _)| master.endpoint == *endpoint) {
            return Arc::clone(master);
        }
        let mut redirected = self.redirected.lock();
        Arc::clone(redirected.entry(endpoint.clone()).or_insert_with(|| Master::new(&self.dialer, endpoint.clone())))
    }

    /// Returns whether slots were moved since the last call of this function.
    pub(super) fn take_moved(&self) -> bool {
        self.moved.swap(false, Ordering::SeqCst)
    }

    /// Reads the cluster in a task of its own, unless it is being read already.
    pub(super) fn look_soon(self: &Arc<Self>) {
        if self.looked.try_lock().is_ok_and(|looked| !is_recent(*looked)) {
            let this = Arc::clone(self);
            tokio::spawn(async move { this.look().await });
        }
    }

    /// Reads the cluster, unless it was read a moment ago.
    pub(super) async fn look(&self) {
        let mut looked = self.looked.lock().await;
        if is_recent(*looked) {
            return;
        }
        match self.view().await {
            Ok(view) => self.install(&view),
            Err(error) => warn!(%error, "no node of the Redis cluster says where its slots are"),
        }
        *looked = Some(Instant::now());
    }

    /// Returns the view of the node that knows most. All nodes are asked, including those of the URL, because any other
    /// node may be gone.
    async fn view(&self) -> Result<View, ConnectError> {
        let (map, url, dialer) = (self.map(), &self.dialer.url().await?, &self.dialer);
        let seeds = url.endpoints.iter().filter(|seed| !map.nodes.contains(seed));
        let asked = map.nodes.iter().chain(seeds).map(|node| async move {
            let answer = timeout(ANSWER, View::of(dialer, node, &url.access, url.tls)).await;
            let silent = |_| Err(ConnectError(format!("no answer within {ANSWER:?}")));
            answer.unwrap_or_else(silent).map_err(|error| format!("{node}: {error}"))
        });
        let (mut best, mut why) = (None::<View>, Vec::new());
        for answer in join_all(asked).await {
            match answer {
                Ok(view) if best.as_ref().is_none_or(|best| best.rank() < view.rank()) => best = Some(view),
                Ok(_) => {}
                Err(error) => why.push(error),
            }
        }
        best.ok_or_else(|| ConnectError(why.join("; ")))
    }

    fn install(&self, view: &View) {
        let mut map = self.map.lock();
        let mut redirected = self.redirected.lock();
        let known = |endpoint: &Endpoint| {
            let known = map.masters.iter().map(|(master, _)| master).chain(redirected.values());
            let known = known.into_iter().find(|master| master.endpoint == *endpoint);
            known.map_or_else(|| Master::new(&self.dialer, endpoint.clone()), Arc::clone)
        };
        let (next, all_kept) = map.next(view, known);
        redirected.clear();
        if !all_kept {
            self.moved.store(true, Ordering::SeqCst);
        }
        let names = |map: &Map| {
            let mut names: Vec<String> = map.masters.iter().map(|(master, _)| master.endpoint.to_string()).collect();
            names.sort();
            names.join(", ")
        };
        let (before, now) = (names(&map), names(&next));
        if before != now {
            info!(masters = now, before, "the Redis cluster's masters");
        }
        *map = Arc::new(next);
    }
}

fn is_recent(looked: Option<Instant>) -> bool {
    looked.is_some_and(|at| at.elapsed() < PAUSE)
}
