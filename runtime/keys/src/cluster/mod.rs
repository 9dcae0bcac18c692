//! The keys in a Redis Cluster, each on the master that has its slot.
//!
//! Invariant: all masters together keep the promises of [`super::redis`] for one server. A join runs a script for each
//! key, concurrently, each with a deadline on its own server's clock. If one of them fails, the others are undone
//! ([`join`]). Every master has a marker of its own, and must answer a ping before removals count as done.
mod join;
mod map;
mod router;
mod slot;
mod topology;
mod view;

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use bb8_redis::redis::{Value, from_redis_value};
use futures_util::future::join_all;
use rollcall_schema::{LessonId, UserId};
use tokio::time::Instant;

use super::{
    EarlierField, FailedJoin, KeyEntry, KeysError, LessonKeys, StaleField,
    calls::{ANSWER, failed},
    clock::Time,
    commands::KeyCommand,
    dial::Dialer,
    marker::Marked,
    names::{FIELD_ROLES, Names, seat_numbers},
    scripts::LATE,
};
use join::{Outcome, Part, TOO_LATE};
use map::{Master, Shard};
use router::{Answer, Router};
use topology::Topology;

/// How long the undoing of a failed join may take, beyond [`ANSWER`].
const UNDO: Duration = Duration::from_millis(300);

/// The keys in a cluster.
pub(super) struct ClusterKeys {
    router: Router,
    /// Whether a master has lost writes and no probe has reported it yet.
    lost: AtomicBool,
}

impl ClusterKeys {
    /// Connects, and makes one call to each master.
    pub(super) async fn connect(dialer: Arc<Dialer>, prefix: &str) -> Result<Self, KeysError> {
        if prefix.contains(['{', '}']) {
            let why =
                "leave the braces out of ROLLCALL_REDIS_PREFIX: in a cluster they would put every key on one node";
            return Err(KeysError(why.to_owned()));
        }
        let topology = Topology::of(dialer).await.map_err(|error| KeysError(error.to_string()))?;
        let router = Router { topology: Arc::new(topology), names: Names::new(prefix) };
        let this = Self { router, lost: AtomicBool::new(false) };
        this.ping().await?;
        Ok(this)
    }

    fn names(&self) -> &Names {
        &self.router.names
    }

    async fn all(
        &self,
        operation: &'static str,
        deadline: Instant,
        commands: &[KeyCommand],
        marked: bool,
    ) -> Result<Vec<Value>, KeysError> {
        let answers = self.router.run(deadline, commands, marked).await;
        answers.into_iter().collect::<Result<_, _>>().map_err(|why| failed(operation, why))
    }

    /// Writes a master's marker. Returns true if every write from before is still there.
    async fn probe_one(&self, master: &Master, shard: &Shard, marker: &str) -> Result<bool, KeysError> {
        let mark = shard.marker.next(&self.names().key(&format!("{marker}{}", shard.tag)));
        let write = self.names().mark(&mark, true);
        let asked = master.calls.run("probe", |scripts, _| {
            let mut commands = bb8_redis::redis::Pipeline::with_capacity(2);
            write.add_to(&mut commands, scripts, 0);
            commands.cmd("TIME");
            commands
        });
        let (marked, time): (Value, Time) = asked.await.map_err(|error| {
            self.router.topology.look_soon();
            KeysError(format!("{}: {}", master.endpoint, error.0))
        })?;
        master.clock.heard(time);
        Ok(shard.marker.probed(&mark, Marked::read(marked)?))
    }
}

#[async_trait]
impl LessonKeys for ClusterKeys {
    fn name(&self) -> &'static str {
        "redis"
    }

    fn may_lose(&self) -> bool {
        true
    }

    async fn ping(&self) -> Result<(), KeysError> {
        let map = self.router.topology.map();
        if let Some(slot) = map.gap() {
            self.router.topology.look_soon();
            return Err(failed("ping", format!("no node has slot {slot}: see its CLUSTER INFO, and start its master")));
        }
        let pings: Vec<KeyCommand> = map.masters.iter().flat_map(|(_, shard)| self.names().ping(&shard.tag)).collect();
        self.all("ping", Instant::now() + ANSWER, &pings, false).await.map(drop)
    }

    async fn join(&self, entry: &KeyEntry, before: Option<&EarlierField>) -> Result<bool, FailedJoin> {
        let deadline = Instant::now() + ANSWER;
        let parts = join::parts(self.names(), entry, before);
        let commands: Vec<KeyCommand> = parts.iter().map(|Part { command, .. }| command.clone()).collect();
        let answers = self.router.run(deadline, &commands, false).await;
        let Outcome { known, mut failure, undo, unsettled } = Outcome::new(entry, parts, answers);
        if failure.is_none()
            && let Some(last) = join::last(self.names(), entry)
        {
            let answers = self.router.run(deadline, &[last], false).await;
            failure = answers.into_iter().find_map(|answer| join::done(answer).err());
        }
        let Some(failure) = failure else { return Ok(known) };
        self.router.run(Instant::now() + UNDO, &undo, false).await;
        Err(FailedJoin { error: failed("join", failure), unsettled })
    }

    async fn remove(&self, stale: &[StaleField]) -> Result<(), KeysError> {
        let removals = stale.iter().flat_map(|stale| FIELD_ROLES.map(|role| self.names().remove(&[role], stale)));
        let removals: Vec<KeyCommand> = removals.collect();
        self.all("leave", Instant::now() + ANSWER, &removals, true).await.map(drop)
    }

    async fn seats(&self, lesson: &LessonId) -> Result<BTreeMap<u32, String>, KeysError> {
        let read = self.names().read_seats(lesson);
        let answers = self.all("seats", Instant::now() + ANSWER, &[read], false).await?;
        let fields: Option<HashMap<String, String>> =
            answers.into_iter().find_map(|answer| from_redis_value(answer).ok());
        Ok(seat_numbers(fields.unwrap_or_default()))
    }

    async fn erase(&self, user: &UserId, lessons: &[LessonId]) -> Result<(), KeysError> {
        let commands = self.names().erase(user, lessons);
        self.all("erase", Instant::now() + ANSWER, &commands, false).await.map(drop)
    }

    async fn repair(&self, entries: &[KeyEntry]) -> Result<bool, KeysError> {
        let deadline = Instant::now() + ANSWER;
        let looks: Vec<Vec<KeyCommand>> = entries.iter().map(|entry| self.names().look(entry)).collect();
        let asked: Vec<KeyCommand> = looks.iter().flatten().cloned().collect();
        let mut answers = self.router.run(deadline, &asked, false).await.into_iter();
        let mut is_whole = |asked: usize| {
            let there = |answer: &Answer| matches!(answer, Ok(Value::Int(1)));
            answers.by_ref().take(asked).filter(there).count() == asked
        };
        let missing = entries.iter().zip(&looks).filter(|(_, looks)| !is_whole(looks.len())).map(|(entry, _)| entry);
        let repairs: Vec<KeyCommand> = missing.flat_map(|entry| self.names().repair_each(entry)).collect();
        if repairs.is_empty() {
            return Ok(false);
        }
        let repaired = self.all("project", deadline, &repairs, false).await?;
        let late = repaired.into_iter().any(|answer| from_redis_value(answer).is_ok_and(|answer: i64| answer == LATE));
        if late { Err(KeysError(TOO_LATE.to_owned())) } else { Ok(true) }
    }

    async fn probe(&self, marker: &str) -> Result<bool, KeysError> {
        let map = self.router.topology.map();
        let probes = map.masters.iter().map(|(master, shard)| self.probe_one(master, shard, marker));
        let probed = join_all(probes).await;
        if self.router.topology.take_moved() || probed.iter().any(|probed| matches!(probed, Ok(false))) {
            // The master reports the loss only once, and the probe fails if another master does not answer, so the loss
            // is remembered.
            self.lost.store(true, Ordering::SeqCst);
        }
        probed.into_iter().collect::<Result<Vec<_>, _>>()?;
        Ok(!self.lost.swap(false, Ordering::SeqCst))
    }
}
