//! A private Redis Cluster: three masters with a third of the slots each, and a replica of each master.

use std::io;
use std::time::Duration;

use super::authority::{Authority, Issued};
use super::free_port;
use super::redis::{Redis, RedisKind, RedisOptions};
use super::server::Kind;
use crate::wait::poll;

const MASTERS: usize = 3;
const SLOTS: usize = 16_384;
/// How long a master may be silent before its replica takes over.
const NODE_TIMEOUT: Duration = Duration::from_millis(800);
const LIMIT: Duration = Duration::from_secs(30);

/// The certificates of a cluster whose nodes speak TLS.
#[derive(Clone, Copy)]
pub struct RedisTls<'a> {
    /// The authority that signs the certificates.
    pub authority: &'a Authority,
    /// The nodes' certificate.
    pub server: &'a Issued,
    /// Whether clients have to show a certificate.
    pub asks_clients: bool,
}

/// A private Redis Cluster.
pub struct RedisCluster {
    /// The masters first, then their replicas in the same order, as they were at the start.
    nodes: Vec<RedisNode>,
    tls: bool,
}

/// One node.
struct RedisNode {
    redis: Redis,
    /// The port for clients and for other nodes.
    port: u16,
    bus_port: u16,
}

impl RedisNode {
    fn start(tls: Option<RedisTls<'_>>) -> io::Result<Self> {
        let bus_port = free_port()?;
        let options = RedisOptions::default().with(&format!(
            "--cluster-enabled yes --cluster-require-full-coverage no --cluster-port {bus_port} --cluster-node-timeout {}",
            NODE_TIMEOUT.as_millis()
        ));
        let Some(RedisTls { authority, server, asks_clients }) = tls else {
            let redis = Redis::start_with(options)?;
            return Ok(Self { port: redis.port(), redis, bus_port });
        };
        let port = free_port()?;
        let redis = Redis::start_with(options.with_tls(port, authority, server, asks_clients))?;
        Ok(Self { redis, port, bus_port })
    }

    fn id(&self) -> io::Result<String> {
        let answer = self.redis.tell("CLUSTER MYID")?;
        answer.lines().nth(1).map(str::to_owned).ok_or_else(|| io::Error::other("no id"))
    }
}

impl RedisCluster {
    /// Starts a cluster, and returns when it serves all slots and the replicas have their data.
    ///
    /// # Errors
    /// Returns an error if a node does not start, or the nodes do not find each other.
    pub fn start(tls: Option<RedisTls<'_>>) -> io::Result<Self> {
        let nodes = (0..2 * MASTERS).map(|_| RedisNode::start(tls)).collect::<io::Result<Vec<_>>>()?;
        for (number, node) in nodes.iter().enumerate() {
            node.redis.tell(&format!("CLUSTER SET-CONFIG-EPOCH {}", number + 1))?;
            if number < MASTERS {
                let (first, next) = (number * SLOTS / MASTERS, (number + 1) * SLOTS / MASTERS);
                node.redis.tell(&format!("CLUSTER ADDSLOTSRANGE {first} {}", next - 1))?;
            }
            if number > 0 {
                nodes[0].redis.tell(&format!("CLUSTER MEET 127.0.0.1 {} {}", node.port, node.bus_port))?;
            }
        }
        let this = Self { nodes, tls: tls.is_some() };
        this.all("the nodes know each other", |node| {
            Ok(node.tell("CLUSTER INFO")?.contains(&format!("cluster_known_nodes:{}", 2 * MASTERS)))
        })?;
        for (master, replica) in this.nodes.iter().zip(&this.nodes[MASTERS..]) {
            let command = format!("CLUSTER REPLICATE {}", master.id()?);
            poll(LIMIT, "a replica knows its master", || Ok(replica.redis.tell(&command).ok()))?;
        }
        this.all("the replicas have their data", |node| {
            let replication = node.tell("INFO replication")?;
            Ok(replication.contains("role:master") || replication.contains("master_link_status:up"))
        })?;
        this.wait_until_it_serves()?;
        let replicas = |node: &Redis| Ok(node.tell("CLUSTER NODES")?.matches("slave").count() == MASTERS);
        this.all("everybody knows the replicas", replicas)?;
        Ok(this)
    }

    /// Waits until each running node says that all slots are served.
    ///
    /// # Errors
    /// Returns an error if that does not happen in time.
    pub fn wait_until_it_serves(&self) -> io::Result<()> {
        self.all("all slots are served", |node| Ok(node.tell("CLUSTER INFO")?.contains("cluster_state:ok")))
    }

    fn all(&self, what: &str, is_so: impl Fn(&Redis) -> io::Result<bool>) -> io::Result<()> {
        poll(LIMIT, what, || Ok(self.running().all(|redis| is_so(redis).unwrap_or(false)).then_some(())))
    }

    /// Returns a URL with some of the cluster's nodes.
    #[must_use]
    pub fn url(&self) -> String {
        let nodes: Vec<String> = self.nodes[..2].iter().map(|node| format!("127.0.0.1:{}", node.port)).collect();
        format!("{}+cluster://{}", if self.tls { "rediss" } else { "redis" }, nodes.join(","))
    }

    /// Returns all nodes; the masters of the start come first.
    pub fn nodes(&mut self) -> impl Iterator<Item = &mut Redis> {
        self.nodes.iter_mut().map(|node| &mut node.redis)
    }

    /// Returns the ports on which the nodes speak without TLS.
    #[must_use]
    pub fn ports(&self) -> Vec<u16> {
        self.nodes.iter().map(|node| node.redis.port()).collect()
    }

    /// Returns the number of the node that is the master of a key.
    ///
    /// # Errors
    /// Returns an error if no node is.
    pub fn master_of(&self, key: &str) -> io::Result<usize> {
        poll(LIMIT, "the key's master", || {
            let is_master = |node: &RedisNode| {
                let redis = &node.redis;
                redis.tell(&format!("GET {key}")).map_or_else(|error| error.to_string().contains("WRONGTYPE"), |_| true)
            };
            Ok(self.nodes.iter().position(is_master))
        })
    }

    /// Returns a node by its number.
    pub fn node(&mut self, number: usize) -> &mut Redis {
        &mut self.nodes[number].redis
    }

    /// Allows or forbids that replicas take over from masters that are gone.
    ///
    /// # Errors
    /// Returns an error if a node that runs refuses.
    pub fn let_replicas_take_over(&self, may: bool) -> io::Result<()> {
        let setting = format!("CONFIG SET cluster-replica-no-failover {}", if may { "no" } else { "yes" });
        self.running().try_for_each(|redis| redis.tell(&setting).map(drop))
    }

    fn running(&self) -> impl Iterator<Item = &Redis> {
        self.nodes.iter().map(|node| &node.redis).filter(|redis| RedisKind::ask(redis.port()).is_ok())
    }

    /// Makes the replica of this node the master without loss of data, as operators do before maintenance.
    ///
    /// # Errors
    /// Returns an error if the node has no replica.
    pub fn fail_over(&self, number: usize) -> io::Result<()> {
        let id = self.nodes[number].id()?;
        let replica = self.nodes.iter().find(|node| {
            let said = node.redis.tell("CLUSTER NODES").unwrap_or_default();
            said.lines().any(|line| line.contains("myself,slave") && line.contains(&id))
        });
        let replica = replica.ok_or_else(|| io::Error::other("the node has no replica"))?;
        replica.redis.tell("CLUSTER FAILOVER")?;
        poll(LIMIT, "the failover", || {
            Ok(replica.redis.tell("INFO replication")?.contains("role:master").then_some(()))
        })
    }

    /// Moves the slot of a key from its master to another one. During `meanwhile` the slot is in migration: missing
    /// keys are created on the new master. Afterwards the remaining keys and the slot are moved.
    ///
    /// # Errors
    /// Returns an error if a node refuses.
    pub fn move_slot(&self, key: &str, to: usize, meanwhile: impl FnOnce()) -> io::Result<()> {
        let from = &self.nodes[self.master_of(key)?];
        let to = &self.nodes[to];
        let slot = from.redis.tell(&format!("CLUSTER KEYSLOT {key}"))?.trim().trim_start_matches(':').to_owned();
        to.redis.tell(&format!("CLUSTER SETSLOT {slot} IMPORTING {}", from.id()?))?;
        from.redis.tell(&format!("CLUSTER SETSLOT {slot} MIGRATING {}", to.id()?))?;
        meanwhile();
        from.redis.tell(&format!("MIGRATE 127.0.0.1 {} {key} 0 5000", to.port))?;
        for node in [to, from] {
            node.redis.tell(&format!("CLUSTER SETSLOT {slot} NODE {}", to.id()?))?;
        }
        Ok(())
    }
}
