//! The keys in one Redis server: the server of REDIS_URL, or the master that Sentinel names.
//!
//! Invariant: a join is one script, so it is done completely or not at all, in one round trip. No call takes longer
//! than [`ANSWER`], whatever the server does. A join that reaches the server after that, because the network delayed
//! it, does nothing, because its caller may be gone by then, and its fields removed.
use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use async_trait::async_trait;
use bb8_redis::redis::{Pipeline, RedisResult, Value, from_redis_value};
use rollcall_schema::{LessonId, UserId};
use tokio::time::Instant;

use super::{
    EarlierField, FailedJoin, KeyEntry, KeysError, LessonKeys, StaleField,
    calls::{ANSWER, Calls, failed},
    clock::{Clock, Time},
    commands::KeyCommand,
    dial::Dialer,
    marker::{Marked, Marker},
    names::{FIELD_ROLES, Names, seat_numbers},
    scripts::{LATE, Scripts},
    state,
};

/// The keys in one server.
pub(super) struct RedisKeys {
    calls: Calls,
    names: Names,
    clock: Arc<Clock>,
    marker: Marker,
}

impl RedisKeys {
    /// Connects, and makes one call.
    pub(super) async fn connect(dialer: Arc<Dialer>, prefix: &str) -> Result<Self, KeysError> {
        let clock = Arc::<Clock>::default();
        let calls = Calls::new(dialer, None, Arc::clone(&clock));
        let this = Self { calls, names: Names::new(prefix), clock, marker: Marker::default() };
        this.ping().await?;
        Ok(this)
    }

    /// Returns a pipeline with commands that do nothing after the deadline.
    fn pipeline<'a>(
        &self,
        scripts: &Scripts,
        deadline: Instant,
        commands: impl IntoIterator<Item = &'a KeyCommand>,
    ) -> Pipeline {
        let (mut pipeline, deadline) = (Pipeline::new(), self.clock.at(deadline));
        commands.into_iter().for_each(|command| command.add_to(&mut pipeline, scripts, deadline));
        pipeline
    }

    /// Returns the entries of which a part is missing or has another type. Nearly every part exists, and running the
    /// script on it takes many times as long as this check.
    async fn missing<'a>(&self, deadline: Instant, entries: &'a [KeyEntry]) -> Result<Vec<&'a KeyEntry>, KeysError> {
        let looks: Vec<Vec<KeyCommand>> = entries.iter().map(|entry| self.names.look(entry)).collect();
        let commands = |scripts: &Scripts| self.pipeline(scripts, deadline, looks.iter().flatten());
        let answers = self.calls.run_each(deadline, commands).await.map_err(|failure| failed("project", failure))?;
        let mut answers = answers.into_iter().map(|answer| answer.and_then(|answer| Ok(from_redis_value(answer)?)));
        let mut whole = |asked| {
            let there = |answer: &RedisResult<bool>| matches!(answer, Ok(true));
            answers.by_ref().take(asked).filter(there).count() == asked
        };
        let asked = entries.iter().zip(looks.iter().map(Vec::len));
        Ok(asked.filter_map(|(entry, asked)| (!whole(asked)).then_some(entry)).collect())
    }
}

fn late() -> KeysError {
    KeysError("it came to Redis too late, or Redis's clock was set".to_owned())
}

#[async_trait]
impl LessonKeys for RedisKeys {
    fn name(&self) -> &'static str {
        "redis"
    }

    fn may_lose(&self) -> bool {
        true
    }

    async fn ping(&self) -> Result<(), KeysError> {
        let commands = self.names.ping("");
        self.calls.run("ping", |scripts, deadline| self.pipeline(scripts, deadline, &commands)).await
    }

    async fn join(&self, entry: &KeyEntry, before: Option<&EarlierField>) -> Result<bool, FailedJoin> {
        let join = self.names.join(entry, before);
        let joined = self.calls.run("join", |scripts, deadline| self.pipeline(scripts, deadline, [&join])).await;
        let (known,): (i64,) = joined.map_err(|KeysError(why)| KeysError(state::with_keys(why, &join.keys)))?;
        if known == LATE { Err(late().into()) } else { Ok(known == 1) }
    }

    async fn remove(&self, stale: &[StaleField]) -> Result<(), KeysError> {
        if stale.is_empty() {
            return Ok(());
        }
        let removals = stale.iter().map(|stale| self.names.remove(&FIELD_ROLES, stale));
        let mark = self.marker.again();
        let commands: Vec<KeyCommand> = removals.chain(mark.iter().map(|mark| self.names.mark(mark, false))).collect();
        let answers: Vec<Value> =
            self.calls.run("leave", |scripts, deadline| self.pipeline(scripts, deadline, &commands)).await?;
        if let Some((mark, answer)) = mark.zip(answers.into_iter().next_back()) {
            self.marker.answered(&mark, Marked::read(answer)?.answer);
        }
        Ok(())
    }

    async fn seats(&self, lesson: &LessonId) -> Result<BTreeMap<u32, String>, KeysError> {
        let read = self.names.read_seats(lesson);
        let (fields,): (HashMap<String, String>,) =
            self.calls.run("seats", |scripts, deadline| self.pipeline(scripts, deadline, [&read])).await?;
        Ok(seat_numbers(fields))
    }

    async fn erase(&self, user: &UserId, lessons: &[LessonId]) -> Result<(), KeysError> {
        let commands = self.names.erase(user, lessons);
        self.calls.run("erase", |scripts, deadline| self.pipeline(scripts, deadline, &commands)).await
    }

    async fn repair(&self, entries: &[KeyEntry]) -> Result<bool, KeysError> {
        if entries.is_empty() {
            return Ok(false);
        }
        let deadline = Instant::now() + ANSWER;
        let missing = self.missing(deadline, entries).await?;
        if missing.is_empty() {
            return Ok(false);
        }
        let repairs: Vec<KeyCommand> = missing.into_iter().map(|entry| self.names.repair(entry)).collect();
        let commands = |scripts: &Scripts, deadline| self.pipeline(scripts, deadline, &repairs);
        let repaired: Vec<i64> = self.calls.run_until(deadline, "project", commands).await?;
        if repaired.contains(&LATE) { Err(late()) } else { Ok(true) }
    }

    async fn probe(&self, marker: &str) -> Result<bool, KeysError> {
        let mark = self.marker.next(&self.names.key(marker));
        let write = self.names.mark(&mark, true);
        let commands = |scripts: &Scripts, deadline: Instant| {
            let mut commands = self.pipeline(scripts, deadline, [&write]);
            commands.cmd("TIME");
            commands
        };
        let (marked, time): (Value, Time) = self.calls.run("probe", commands).await?;
        self.clock.heard(time);
        Ok(self.marker.probed(&mark, Marked::read(marked)?))
    }
}
