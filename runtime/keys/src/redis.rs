//! The keys in Redis.
//!
//! Invariant: a join is one script, so it is whole or not there at all, and one round trip. No call outlives
//! [`ANSWER`], whatever the server does. A join that
//! comes to the server after that, from a line that stood still, does nothing: its sender may be gone by then, and
//! its fields removed.
use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use async_trait::async_trait;
use bb8_redis::redis::{Pipeline, RedisResult};
use rollcall_schema::{LessonId, Role, UserId, key};
use tokio::time::Instant;

use super::{
    KeyEntry, KeysError, LessonKeys, StaleField,
    calls::{ANSWER, Calls},
    connection::{Clock, Scripts, Time},
    marker::{Mark, Marker},
};
use rollcall_base::BackendUrl;

/// What a ping writes, and for how many seconds it stays.
const PINGED: (&str, u64) = ("rollcall:marker:ping", 10);

/// The keys in Redis.
pub struct RedisKeys {
    calls: Calls,
    prefix: String,
    clock: Arc<Clock>,
    marker: Marker,
}

impl RedisKeys {
    /// Connects, and asks once. The address is read again for each new connection.
    ///
    /// # Errors
    /// [`KeysError`] where the URL is none or the server does not answer. Its text has no part of the URL, which may hold
    /// a password.
    pub async fn connect(url: impl Into<BackendUrl>, prefix: &str) -> Result<Self, KeysError> {
        let clock = Arc::<Clock>::default();
        let calls = Calls::new(url.into(), Arc::clone(&clock)).map_err(|error| KeysError(error.to_string()))?;
        let this = Self { calls, prefix: prefix.to_owned(), clock, marker: Marker::default() };
        this.ping().await?;
        Ok(this)
    }

    fn key(&self, name: String) -> String {
        if self.prefix.is_empty() { name } else { format!("{}{name}", self.prefix) }
    }

    /// The hash of the fields of a role.
    fn fields(&self, role: Role, lesson: &LessonId) -> String {
        self.key(match role {
            Role::Teacher => key::lesson_teacher(lesson),
            Role::Participant | Role::Hub => key::lesson_student(lesson),
        })
    }

    /// The keys and arguments of the scripts for a join that does nothing after the deadline.
    fn entry(
        &self,
        pipeline: &mut Pipeline,
        (script, deadline): (&str, Instant),
        entry: &KeyEntry,
        before: Option<&LessonId>,
    ) {
        let mut keys = vec![self.key(key::lesson_seat(&entry.lesson))];
        if let Some((user, role)) = &entry.user {
            keys.extend([self.fields(*role, &entry.lesson), self.key(key::user(user))]);
            if let Some(before) = before.filter(|before| **before != entry.lesson) {
                keys.extend([Role::Teacher, Role::Participant].map(|role| self.fields(role, before)));
            }
        }
        let (user, role) = entry.user.as_ref().map_or(("", ""), |(user, role)| (user.as_str(), role.as_str()));
        pipeline.cmd("EVALSHA").arg(script).arg(keys.len()).arg(keys);
        pipeline.arg(key::TTL_SECONDS).arg(entry.seats).arg(role).arg(user);
        pipeline.arg(entry.sid.to_string()).arg(entry.lesson.as_str());
        pipeline.arg(self.clock.at(deadline).to_string());
    }

    /// Asks whether all of a join is there, and renews the TTLs of what is. Returns how many answers that takes.
    fn look(&self, commands: &mut Pipeline, KeyEntry { lesson, seats, user, .. }: &KeyEntry) -> usize {
        let mut asked = 0;
        let mut ask = |command: &str, key: &str, argument: &str| {
            commands.cmd(command).arg(key).arg(argument);
            asked += 1;
        };
        let ttl = key::TTL_SECONDS.to_string();
        if *seats > 0 {
            let map = self.key(key::lesson_seat(lesson));
            ask("EXPIRE", &map, &ttl);
            ask("HEXISTS", &map, &seats.to_string());
        }
        if let Some((user, role)) = user {
            let (fields, user_key) = (self.fields(*role, lesson), self.key(key::user(user)));
            ask("EXPIRE", &fields, &ttl);
            ask("HEXISTS", &fields, user.as_str());
            ask("EXPIRE", &user_key, &ttl);
            let known: &[&str] = if *role == Role::Teacher { &["lesson_id"] } else { &["sid", "client_id", "role"] };
            known.iter().for_each(|field| ask("HEXISTS", &user_key, field));
        }
        asked
    }

    /// Those of which something is missing, or of another type. Nearly all is there, and the script, which would do
    /// nothing for it, takes many times as long as a look.
    async fn missing<'a>(&self, deadline: Instant, entries: &'a [KeyEntry]) -> Result<Vec<&'a KeyEntry>, KeysError> {
        let mut commands = Pipeline::new();
        commands.ignore_errors();
        let asked: Vec<usize> = entries.iter().map(|entry| self.look(&mut commands, entry)).collect();
        let answers: Vec<RedisResult<bool>> =
            self.calls.run_until(deadline, "project", |_, _| commands.clone()).await?;
        let mut answers = answers.into_iter();
        let mut whole = |asked| answers.by_ref().take(asked).filter(|there| matches!(there, Ok(true))).count() == asked;
        Ok(entries.iter().zip(asked).filter_map(|(entry, asked)| (!whole(asked)).then_some(entry)).collect())
    }
}

/// Writes the marker, and asks for the replication's id where that is wanted.
fn write(commands: &mut Pipeline, scripts: &Scripts, Mark { key, number, least }: &Mark, replication: bool) {
    commands.cmd("EVALSHA").arg(&scripts.mark).arg(1).arg(key);
    commands.arg(key::TTL_SECONDS).arg(*number).arg(least.unwrap_or(0)).arg(u8::from(replication));
}

/// What that answers: whether it is written, and the replication's id.
type Marked = (i64, String);

/// What a script answers that came too late, by the server's clock.
const LATE: i64 = -1;

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
        let (name, seconds) = PINGED;
        self.calls
            .run("ping", |_, _| {
                let mut commands = Pipeline::with_capacity(1);
                commands.cmd("SET").arg(self.key(name.to_owned())).arg(1).arg("EX").arg(seconds).ignore();
                commands
            })
            .await
    }

    async fn join(&self, entry: &KeyEntry, before: Option<&LessonId>) -> Result<bool, KeysError> {
        let commands = |scripts: &Scripts, deadline| {
            let mut commands = Pipeline::with_capacity(1);
            self.entry(&mut commands, (&scripts.join, deadline), entry, before);
            commands
        };
        let (known,): (i64,) = self.calls.run("join", commands).await?;
        if known == LATE { Err(late()) } else { Ok(known == 1) }
    }

    async fn remove(&self, stale: &[StaleField]) -> Result<(), KeysError> {
        if stale.is_empty() {
            return Ok(());
        }
        let mark = self.marker.again();
        let left = self.calls.run("leave", |scripts, _| {
            let mut commands = Pipeline::with_capacity(stale.len() + 1);
            for StaleField { field, successor } in stale {
                let hashes = [Role::Teacher, Role::Participant].map(|role| self.fields(role, &field.lesson));
                commands.cmd("EVALSHA").arg(&scripts.remove).arg(hashes.len()).arg(&hashes);
                commands.arg(field.user.as_str()).arg(field.sid.to_string());
                commands.arg(successor.map(|successor| successor.to_string()).unwrap_or_default()).ignore();
            }
            mark.iter().for_each(|mark| write(&mut commands, scripts, mark, false));
            commands
        });
        let answers: Vec<Marked> = left.await?;
        mark.iter().zip(answers).for_each(|(mark, (answer, _))| self.marker.answered(mark, answer));
        Ok(())
    }

    async fn seats(&self, lesson: &LessonId) -> Result<BTreeMap<u32, String>, KeysError> {
        let commands = |_: &Scripts, _: Instant| {
            let mut commands = Pipeline::with_capacity(1);
            commands.cmd("HGETALL").arg(self.key(key::lesson_seat(lesson)));
            commands
        };
        let (map,): (HashMap<String, String>,) = self.calls.run("seats", commands).await?;
        // Other services write there, too: what is no seat's number is theirs.
        Ok(map.into_iter().filter_map(|(number, value)| Some((number.parse().ok()?, value))).collect())
    }

    async fn erase(&self, user: &UserId, lessons: &[LessonId]) -> Result<(), KeysError> {
        let commands = |_: &Scripts, _: Instant| {
            let mut commands = Pipeline::new();
            commands.cmd("DEL").arg(self.key(key::user(user))).ignore();
            for lesson in lessons {
                for role in [Role::Teacher, Role::Participant] {
                    commands.cmd("HDEL").arg(self.fields(role, lesson)).arg(user.as_str()).ignore();
                }
            }
            commands
        };
        self.calls.run("erase", commands).await
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
        let repaired = self.calls.run_until(deadline, "project", |scripts, deadline| {
            let mut commands = Pipeline::with_capacity(missing.len());
            for entry in &missing {
                self.entry(&mut commands, (&scripts.repair, deadline), entry, None);
            }
            commands
        });
        let repaired: Vec<i64> = repaired.await?;
        if repaired.contains(&LATE) { Err(late()) } else { Ok(true) }
    }

    async fn probe(&self, marker: &str) -> Result<bool, KeysError> {
        let mark = self.marker.next(&self.key(marker.to_owned()));
        let commands = |scripts: &Scripts, _: Instant| {
            let mut commands = Pipeline::with_capacity(2);
            write(&mut commands, scripts, &mark, true);
            commands.cmd("TIME");
            commands
        };
        let ((answer, replication), time): (Marked, Time) = self.calls.run("probe", commands).await?;
        self.clock.heard(time);
        Ok(self.marker.probed(&mark, answer, Some(replication).filter(|id| !id.is_empty())))
    }
}
