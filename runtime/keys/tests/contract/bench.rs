//! An implementation, and a view of its keys as another service has it.
use std::{collections::BTreeMap, sync::Arc};

use async_trait::async_trait;
use bb8_redis::redis::{Client, aio::MultiplexedConnection, cmd};
use rollcall_keys::{KeyEntry, KeyField, LessonKeys, StaleField, memory::MemoryKeys, redis::RedisKeys};
use rollcall_schema::{LessonId, Role, Sid, UserId, key::TTL_SECONDS};

pub(crate) type Hash = BTreeMap<String, String>;

/// An implementation, and a view of its keys that does not go through it.
#[async_trait]
pub(crate) trait Bench: Send + Sync {
    fn kv(&self) -> Arc<dyn LessonKeys>;
    /// HGETALL and TTL.
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
        // TTL rounds.
        self.0.hash(key).map(|(hash, ttl)| (hash, ttl.as_secs()))
    }
    async fn flush(&self) {
        self.0.clear();
    }
}

pub(crate) struct InRedis {
    pub(crate) kv: Arc<RedisKeys>,
    prefix: String,
    pub(crate) connection: MultiplexedConnection,
}

impl InRedis {
    pub(crate) async fn at(url: &str, prefix: &str) -> Self {
        let kv = Arc::new(RedisKeys::connect(url, prefix).await.unwrap());
        Self { kv, prefix: prefix.to_owned(), connection: raw(url).await }
    }
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
        let mut connection = self.connection.clone();
        let key = format!("{}{key}", self.prefix);
        let hash: Hash = cmd("HGETALL").arg(&key).query_async(&mut connection).await.unwrap();
        let ttl: i64 = cmd("TTL").arg(&key).query_async(&mut connection).await.unwrap();
        (ttl >= 0).then(|| (hash, ttl.try_into().unwrap()))
    }
    async fn flush(&self) {
        let mut connection = self.connection.clone();
        let all = format!("{}*", self.prefix);
        let keys: Vec<String> = cmd("KEYS").arg(all).query_async(&mut connection).await.unwrap();
        cmd("DEL").arg("none").arg(keys).exec_async(&mut connection).await.unwrap();
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

/// The end of a join, without or with an successor.
pub(crate) fn stale(entry: &KeyEntry, successor: Option<u128>) -> StaleField {
    let (user, _) = entry.user.clone().unwrap();
    StaleField { field: KeyField { lesson: entry.lesson.clone(), user, sid: entry.sid }, successor: successor.map(Sid) }
}

pub(crate) fn hash<const N: usize>(fields: [(&str, &str); N]) -> Option<Hash> {
    Some(fields.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
}

pub(crate) fn sid(number: u128) -> String {
    Sid(number).to_string()
}

/// The hash, whose TTL must be the contract's.
pub(crate) async fn fresh(bench: &dyn Bench, key: &str) -> Option<Hash> {
    let (hash, ttl) = bench.read(key).await?;
    assert!((TTL_SECONDS - 60..=TTL_SECONDS).contains(&ttl), "{key} lives for {ttl} s");
    Some(hash)
}
