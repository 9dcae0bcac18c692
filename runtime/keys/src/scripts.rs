//! The Lua scripts, and the hashes by which a server knows them.
use std::sync::Arc;

use bb8_redis::redis::{Pipeline, RedisError, Value, aio::MultiplexedConnection, from_redis_value};

use super::clock::{Clock, Time};

/// One of the scripts. Its file says what it does.
#[derive(Clone, Copy, Debug)]
pub(super) enum Script {
    Join,
    Repair,
    Remove,
    Mark,
    /// The following are for a cluster, where each key may be on another node.
    Write,
    Replace,
    Add,
}

/// The sources, in the order of [`Script`].
const SOURCES: [&str; 7] = [
    concat!(include_str!("scripts/late.lua"), include_str!("scripts/entry.lua"), include_str!("scripts/join.lua")),
    concat!(include_str!("scripts/late.lua"), include_str!("scripts/entry.lua"), include_str!("scripts/repair.lua")),
    include_str!("scripts/remove.lua"),
    include_str!("scripts/mark.lua"),
    concat!(include_str!("scripts/late.lua"), include_str!("scripts/write.lua")),
    concat!(include_str!("scripts/late.lua"), include_str!("scripts/replace.lua")),
    concat!(include_str!("scripts/late.lua"), include_str!("scripts/add.lua")),
];

/// The answer of a script that did nothing, because it ran too late by the server's clock.
pub(super) const LATE: i64 = -1;

/// The hashes of the scripts.
#[derive(Debug)]
pub(super) struct Scripts(Vec<String>);

impl Scripts {
    /// Returns the hash of a script.
    pub(super) fn hash(&self, script: Script) -> &str {
        &self.0[script as usize]
    }

    /// Loads the scripts into the server, and reads its clock.
    pub(super) async fn load(connection: &mut MultiplexedConnection, clock: &Clock) -> Result<Self, RedisError> {
        let mut commands = Pipeline::with_capacity(SOURCES.len() + 1);
        for source in SOURCES {
            commands.cmd("SCRIPT").arg("LOAD").arg(source);
        }
        commands.cmd("TIME");
        let mut answers: Vec<Value> = commands.query_async(connection).await?;
        let time: Time = from_redis_value(answers.pop().unwrap_or_default())?;
        clock.heard(time);
        Ok(Self(answers.into_iter().map(from_redis_value).collect::<Result<_, _>>()?))
    }
}

/// Returns whether an error says that a script is unknown, because the server was restarted or its scripts were
/// flushed. In a pipeline each command may report this error.
pub(super) fn lacks_script(error: &RedisError) -> bool {
    const CODE: &str = "NOSCRIPT";
    let among = |errors: Arc<[(usize, bb8_redis::redis::ServerError)]>| errors.iter().any(|(_, e)| e.code() == CODE);
    error.code() == Some(CODE) || error.clone().into_server_errors().is_some_and(among)
}
