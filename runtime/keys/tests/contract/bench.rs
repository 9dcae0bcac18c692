//! An implementation of the keys, and its keys as another service sees them.
use std::{collections::BTreeMap, sync::Arc};

use async_trait::async_trait;
use bb8_redis::redis::{Client, Cmd, FromRedisValue, Value, aio::MultiplexedConnection, cmd};
use rollcall_base::{BackendUrl, tls::ClientTls};
use rollcall_keys::{
    EarlierField, KeyEntry, KeyField, LessonKeys, RedisOptions, StaleField, Successors, memory::MemoryKeys,
};
use rollcall_schema::{LessonId, Role, Sid, UserId, key::TTL_SECONDS};

pub(crate) type Hash = BTreeMap<String, String>;

/// An implementation, with access to its keys that does not use the implementation.
#[async_trait]
pub(crate) trait Bench: Send + Sync {
    fn kv(&self) -> Arc<dyn LessonKeys>;
    /// Returns the answers of HGETALL and TTL for a key.
    async fn read(&self, key: &str) -> Option<(Hash, u64)>;
    async fn flush(&self);
}

pub(crate) struct InMemory(pub(crate) Arc<MemoryKeys>);

#[async_trait]
impl Bench for InMemory {
    fn kv(&self) -> Arc<dyn LessonKeys> {
        self.0.clone()
    }
    async fn read(&self, key: &str) -> Option<(Hash, u64)> {
        // TTL is rounded to seconds.
        self.0.hash(key).map(|(hash, ttl)| (hash, ttl.as_secs()))
    }
    async fn flush(&self) {
        self.0.clear();
    }
}

/// One Redis server or several.
pub(crate) struct InRedis {
    pub(crate) kv: Arc<dyn LessonKeys>,
    prefix: String,
    /// A connection without TLS to each server that may have keys.
    pub(crate) connections: Vec<MultiplexedConnection>,
}

impl InRedis {
    /// Creates the keys on one server.
    pub(crate) async fn at(url: &str, prefix: &str) -> Self {
        Self { kv: connected(url, prefix).await, prefix: prefix.to_owned(), connections: vec![raw(url).await] }
    }

    /// Creates the keys on servers at these ports of this machine, to which `options` lead.
    pub(crate) async fn of(options: RedisOptions, ports: impl IntoIterator<Item = u16>) -> Self {
        let prefix = options.prefix.clone();
        let mut connections = Vec::new();
        for port in ports {
            connections.push(raw(&format!("redis://127.0.0.1:{port}")).await);
        }
        Self { kv: rollcall_keys::connect(options).await.unwrap(), prefix, connections }
    }

    /// Returns the name of a key with the prefix.
    pub(crate) fn name(&self, key: &str) -> String {
        format!("{}{key}", self.prefix)
    }

    /// Writes as another service does, to a key that is named without the prefix.
    pub(crate) async fn write(&self, command: &str, key: &str, arguments: &[&str]) {
        let _: Value = self.tell(cmd(command).arg(self.name(key)).arg(arguments)).await;
    }

    /// Sends a command to the server that has the key.
    pub(crate) async fn tell<T: FromRedisValue>(&self, command: &Cmd) -> T {
        let mut said = None;
        for connection in &self.connections {
            match command.query_async(&mut connection.clone()).await {
                Ok(answer) => return answer,
                Err(error) => said = Some(error),
            }
        }
        panic!("no server carries it out: {said:?}");
    }
}

/// Returns the keys at a URL, without certificates.
pub(crate) async fn connected(url: impl Into<BackendUrl>, prefix: &str) -> Arc<dyn LessonKeys> {
    rollcall_keys::connect(options(url, prefix)).await.unwrap()
}

pub(crate) fn options(url: impl Into<BackendUrl>, prefix: &str) -> RedisOptions {
    RedisOptions { url: url.into(), prefix: prefix.to_owned(), tls: ClientTls::default() }
}

pub(crate) async fn raw(url: &str) -> MultiplexedConnection {
    Client::open(url).unwrap().get_multiplexed_async_connection().await.unwrap()
}

#[async_trait]
impl Bench for InRedis {
    fn kv(&self) -> Arc<dyn LessonKeys> {
        self.kv.clone()
    }
    async fn read(&self, key: &str) -> Option<(Hash, u64)> {
        let key = self.name(key);
        let hash: Hash = self.tell(cmd("HGETALL").arg(&key)).await;
        let ttl: i64 = self.tell(cmd("TTL").arg(&key)).await;
        (ttl >= 0).then(|| (hash, ttl.try_into().unwrap()))
    }
    async fn flush(&self) {
        let all = format!("{}*", self.prefix);
        for connection in &self.connections {
            let mut connection = connection.clone();
            let keys: Vec<String> = cmd("KEYS").arg(&all).query_async(&mut connection).await.unwrap();
            for key in keys {
                // A replica has the key, too, and redirects the command.
                let deleted = cmd("DEL").arg(key).exec_async(&mut connection).await;
                assert!(deleted.is_ok() || deleted.is_err_and(|error| error.code() == Some("MOVED")));
            }
        }
    }
}

pub(crate) fn lesson(id: &str) -> LessonId {
    LessonId::parse(id).unwrap()
}

pub(crate) fn entry(id: &str, user: &str, role: Role, sid: u128) -> KeyEntry {
    KeyEntry { lesson: lesson(id), seats: 3, sid: Sid(sid), user: Some((UserId::parse(user).unwrap(), role)) }
}

pub(crate) fn participant(id: &str, user: &str, sid: u128) -> KeyEntry {
    entry(id, user, Role::Participant, sid)
}

/// Returns the field of a join, for the connection's next join.
pub(crate) fn earlier(entry: &KeyEntry) -> EarlierField {
    let (_, role) = entry.user.clone().unwrap();
    EarlierField { lesson: entry.lesson.clone(), role, stays: false }
}

/// Returns the stale field of a join, with or without a successor of the same role.
pub(crate) fn stale(entry: &KeyEntry, successor: Option<u128>) -> StaleField {
    let (user, role) = entry.user.clone().unwrap();
    let field = KeyField { lesson: entry.lesson.clone(), user, sid: entry.sid };
    let (successor, none) = (successor.map(Sid), Successors::default());
    let successors = match role {
        Role::Teacher => Successors { teacher: successor, ..none },
        Role::Participant | Role::Hub => Successors { student: successor, ..none },
    };
    StaleField { field, successors }
}

pub(crate) fn hash<const N: usize>(fields: [(&str, &str); N]) -> Option<Hash> {
    Some(fields.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
}

pub(crate) fn sid(number: u128) -> String {
    Sid(number).to_string()
}

/// Reads a hash, and expects that its TTL is the contract's.
pub(crate) async fn fresh(bench: &dyn Bench, key: &str) -> Option<Hash> {
    let (hash, ttl) = bench.read(key).await?;
    assert!((TTL_SECONDS - 60..=TTL_SECONDS).contains(&ttl), "{key} lives for {ttl} s");
    Some(hash)
}
