//! What a test sees of the keys in Redis.

use std::collections::BTreeMap;
use std::time::Duration;

use bb8_redis::redis::{self, aio::MultiplexedConnection};

use super::{SOON, until};

/// The TTL of every key (PROTOCOL 4).
pub(crate) const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// Connections to each Redis server that may have keys.
pub(crate) struct Keys {
    connections: Vec<MultiplexedConnection>,
}

impl Keys {
    pub(crate) async fn of(url: &str) -> Self {
        Self { connections: vec![connection(url).await] }
    }

    /// Connects to servers at these ports of this machine, without TLS.
    pub(crate) async fn at(ports: &[u16]) -> Self {
        let mut connections = Vec::new();
        for port in ports {
            connections.push(connection(&format!("redis://127.0.0.1:{port}")).await);
        }
        Self { connections }
    }

    /// Sends a command to the server that has the key.
    pub(crate) async fn ask<T: redis::FromRedisValue>(&mut self, words: &[&str]) -> T {
        let mut command = redis::cmd(words[0]);
        for word in &words[1..] {
            command.arg(word);
        }
        let mut refusal = None;
        for connection in &mut self.connections {
            match command.query_async(connection).await {
                Ok(answer) => return answer,
                Err(error) => refusal = Some(error),
            }
        }
        panic!("no Redis answers {words:?}: {refusal:?}");
    }

    /// Reads a hash with all its fields; it is empty if the key does not exist.
    pub(crate) async fn hash(&mut self, key: &str) -> BTreeMap<String, String> {
        self.ask(&["HGETALL", key]).await
    }

    /// Reads one field of a hash.
    pub(crate) async fn field(&mut self, key: &str, field: &str) -> Option<String> {
        self.ask(&["HGET", key, field]).await
    }

    /// Returns how long a key still lives. Negative if the key does not exist, or has no TTL.
    pub(crate) async fn ttl(&mut self, key: &str) -> i64 {
        self.ask(&["TTL", key]).await
    }

    /// Expects that a key got its full TTL a moment ago.
    pub(crate) async fn expect_full_ttl(&mut self, key: &str) {
        let ttl = self.ttl(key).await;
        let day = i64::try_from(DAY.as_secs()).unwrap();
        assert!((day - 60..=day).contains(&ttl), "the TTL of {key}: {ttl}");
    }
}

async fn connection(url: &str) -> MultiplexedConnection {
    redis::Client::open(url).unwrap().get_multiplexed_async_connection().await.unwrap()
}

/// Returns the key of the hash of a lesson's participants (PROTOCOL 4).
pub(crate) fn student_hash(lesson: &str) -> String {
    format!("lesson_student_{lesson}")
}

/// Returns a hash as [`Keys::hash`] returns it.
pub(crate) fn hash<const N: usize>(fields: [(&str, &str); N]) -> BTreeMap<String, String> {
    fields.map(|(field, value)| (field.to_owned(), value.to_owned())).into()
}

/// Waits until a field has the wanted value, if the backend keeps its keys where a test can read them.
pub(crate) async fn expect_field(keys: &mut Option<Keys>, key: &str, field: &str, wanted: Option<&str>) {
    let Some(keys) = keys else { return };
    until(key, SOON, async || keys.field(key, field).await, |value| value.as_deref() == wanted).await;
}
