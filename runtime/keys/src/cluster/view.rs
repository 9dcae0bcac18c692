//! How one node describes its cluster.
use bb8_redis::redis::{Pipeline, RedisConnectionInfo, RedisResult, Value, from_redis_value};

use super::slot::SLOTS;
use crate::{
    address::Endpoint,
    dial::{ConnectError, Dialer, connect_error},
};

/// A cluster, as one node sees it.
#[derive(Debug, Default)]
pub(super) struct View {
    /// Whether the node says that the cluster works.
    works: bool,
    /// How many failovers and migrations the node knows of.
    epoch: u64,
    pub(super) ranges: Vec<Range>,
}

/// A range of slots, and its nodes.
#[derive(Debug)]
pub(super) struct Range {
    pub(super) first: u16,
    pub(super) last: u16,
    pub(super) master: Endpoint,
    pub(super) replicas: Vec<Endpoint>,
}

impl View {
    /// Returns the rank of a view. The view with the higher rank counts, because a node that was cut off from the
    /// others knows less.
    pub(super) fn rank(&self) -> (bool, u64) {
        (self.works, self.epoch)
    }

    /// Asks a node on a connection that is closed after the answer.
    pub(super) async fn of(
        dialer: &Dialer,
        node: &Endpoint,
        access: &RedisConnectionInfo,
        tls: bool,
    ) -> Result<Self, ConnectError> {
        let mut line = dialer.dial(node, access, tls).await?;
        let mut questions = Pipeline::with_capacity(2);
        questions.cmd("CLUSTER").arg("SLOTS").cmd("CLUSTER").arg("INFO").ignore_errors();
        let answers = questions.query_async(&mut line.connection).await.map_err(|error| connect_error(&error))?;
        let (slots, info): (RedisResult<Value>, RedisResult<Value>) = answers;
        let slots = slots.map_err(|error| match error.detail() {
            Some(said) if said.contains("cluster support disabled") => {
                ConnectError("this server is no node of a cluster: begin REDIS_URL with redis, or rediss".into())
            }
            _ => connect_error(&error),
        })?;
        let ranges: Vec<Vec<Value>> = from_redis_value(slots).map_err(|error| ConnectError(error.to_string()))?;
        let ranges = ranges.into_iter().filter_map(|range| Range::read(range, node)).collect();
        // The user may not have the right to ask. Then all views have the same rank.
        let info: String = info.ok().and_then(|info| from_redis_value(info).ok()).unwrap_or_default();
        let number = |name: &str| info.lines().find_map(|line| line.strip_prefix(name)?.parse().ok());
        let works = !info.contains("cluster_state:fail");
        Ok(Self { works, epoch: number("cluster_current_epoch:").unwrap_or(0), ranges })
    }
}

impl Range {
    /// Reads `[first, last, [host, port, ...] of the master, of a replica, ...]`. `None` if the master's address is
    /// unknown.
    fn read(range: Vec<Value>, asked: &Endpoint) -> Option<Self> {
        let mut parts = range.into_iter();
        let mut number = || from_redis_value::<u16>(parts.next()?).ok().filter(|slot| *slot < SLOTS);
        let (first, last) = (number()?, number()?);
        let mut nodes = parts.map(|node| {
            let node: Vec<Value> = from_redis_value(node).ok()?;
            let [host, port, ..] = &node[..] else { return None };
            let host: Option<String> = from_redis_value(host.clone()).ok()?;
            Endpoint::of(&host.unwrap_or_default(), from_redis_value(port.clone()).ok()?, asked)
        });
        let master = nodes.next()??;
        Some(Self { first, last, master, replicas: nodes.flatten().collect() })
    }
}
