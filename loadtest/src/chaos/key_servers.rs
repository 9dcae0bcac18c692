//! The servers of the keys: one Redis with a second one that can take over, or a Redis Cluster.
//!
//! Invariant: when a fault has ended each key has a server that takes writes.

use std::io;
use std::thread;
use std::time::Duration;

use rollcall_loadtest::Wire;
use rollcall_loadtest::servers::{Redis, RedisCluster, tell_redis};

use super::faults::Deed;
use super::mishaps::Scene;
use super::victim::Victim;

/// Faults of a cluster happen to the master of this key.
const STRUCK: &str = "lesson_student_chaos";

/// The servers of the keys.
pub(super) enum KeyServers {
    Single {
        redis: Redis,
        /// The Redis that takes over.
        spare: Redis,
    },
    Cluster {
        cluster: RedisCluster,
        /// The node of the cluster that has the present fault.
        struck: usize,
    },
}

impl KeyServers {
    pub(super) fn start(is_cluster: bool) -> io::Result<Self> {
        if is_cluster {
            return Ok(Self::Cluster { cluster: RedisCluster::start(None)?, struck: 0 });
        }
        Ok(Self::Single { redis: Redis::start()?, spare: Redis::start()? })
    }

    /// Returns the port to which a node's wire to Redis leads. Nodes connect to the nodes of a cluster directly.
    pub(super) fn port(&self) -> u16 {
        match self {
            Self::Single { redis, .. } => redis.port(),
            Self::Cluster { cluster, .. } => cluster.ports()[0],
        }
    }

    /// Returns the REDIS_URL of a node with this wire.
    pub(super) fn url(&self, line: &Wire) -> String {
        match self {
            Self::Single { redis, .. } => line.instead_of(&redis.url()),
            Self::Cluster { cluster, .. } => cluster.url(),
        }
    }

    /// Returns the names and values of a hash by turns.
    pub(super) fn hash(&self, key: &str) -> io::Result<Vec<String>> {
        let port = match self {
            Self::Single { redis, .. } => redis.port(),
            Self::Cluster { cluster, .. } => cluster.ports()[cluster.master_of(key)?],
        };
        let answer = tell_redis(port, &format!("HGETALL {key}"))?;
        // The answer is an array of bulk strings: after the array's length, the length of each text precedes the text.
        Ok(answer.lines().skip(1).filter(|line| !line.starts_with('$')).map(str::to_owned).collect())
    }

    /// Causes a fault that does not concern the process, and returns the mishap's name.
    pub(super) fn mishap(
        &mut self,
        scene: &Scene<'_>,
        deed: Deed,
        lasts: Duration,
    ) -> io::Result<Option<&'static str>> {
        let cluster = match self {
            Self::Single { redis, spare } => return scene.strike_redis(redis.port(), spare.port(), deed, lasts),
            Self::Cluster { cluster, .. } => cluster,
        };
        let master = cluster.master_of(STRUCK)?;
        match deed {
            Deed::Demote => {
                cluster.fail_over(master)?;
                Ok(Some("redis demoted"))
            }
            Deed::PutBack => {
                cluster.node(master).kill()?;
                // The replica takes over, and may lack the last writes.
                cluster.master_of(STRUCK)?;
                thread::sleep(lasts);
                cluster.node(master).restart()?;
                Ok(Some("redis put back"))
            }
            _ => Ok(None),
        }
    }
}

impl Victim for KeyServers {
    fn pause(&mut self) -> io::Result<()> {
        match self {
            Self::Single { redis, .. } => redis.pause(),
            Self::Cluster { cluster, struck } => {
                *struck = cluster.master_of(STRUCK)?;
                cluster.node(*struck).pause()
            }
        }
    }

    fn resume(&mut self) -> io::Result<()> {
        match self {
            Self::Single { redis, .. } => redis.resume(),
            Self::Cluster { cluster, struck } => {
                cluster.node(*struck).resume()?;
                cluster.wait_until_it_serves()
            }
        }
    }

    fn kill(&mut self) -> io::Result<()> {
        match self {
            Self::Single { redis, .. } => redis.kill(),
            Self::Cluster { cluster, struck } => {
                *struck = cluster.master_of(STRUCK)?;
                cluster.node(*struck).kill()
            }
        }
    }

    fn restart(&mut self) -> io::Result<()> {
        match self {
            Self::Single { redis, .. } => redis.restart(),
            Self::Cluster { cluster, struck } => {
                cluster.node(*struck).restart()?;
                cluster.wait_until_it_serves()
            }
        }
    }
}
