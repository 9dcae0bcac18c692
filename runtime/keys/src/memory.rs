//! The keys in the process, for a node without Redis.
//!
//! Invariant: the keys read as they would in Redis ([`MemoryKeys::hash`]), but are stored as typed values and not as
//! text, so a participant costs some 200 bytes. Each write also checks a few other entries and drops expired ones, so
//! no sweep is needed that would delay joins.
use std::{
    collections::{BTreeMap, HashMap},
    ops::Bound,
    time::Duration,
};

use async_trait::async_trait;
use parking_lot::Mutex;
use rollcall_schema::{LessonId, Role, Sid, UserId, key};
use tokio::time::Instant;

use super::{EarlierField, FailedJoin, KeyEntry, KeysError, LessonKeys, StaleField, Successors};

/// How many entries of each kind a write checks.
const UPKEEP: usize = 4;

/// The keys in process.
#[derive(Debug, Default)]
pub struct MemoryKeys {
    keys: Mutex<Keys>,
}

#[derive(Debug, Default)]
struct Keys {
    lessons: Swept<LessonId, Lesson>,
    users: Swept<UserId, Timed<User>>,
    markers: HashMap<String, Instant>,
}

#[derive(Debug, Default)]
struct Lesson {
    seats: Option<Timed<u32>>,
    teachers: Option<Timed<Holders>>,
    students: Option<Timed<Holders>>,
}

/// The users in a lesson, sorted by user. This is smaller than a map, and a lesson has tens of users, seldom thousands.
type Holders = Vec<(UserId, Sid)>;

#[derive(Debug, Default)]
struct User {
    lesson: Option<LessonId>,
    participant: Option<(Sid, Role)>,
}

#[derive(Debug)]
struct Timed<T> {
    until: Instant,
    value: T,
}

impl<T> Timed<T> {
    fn alive(&self, now: Instant) -> bool {
        self.until > now
    }
}

/// Returns the value, or a new one if there is none or it has expired. Its TTL starts again.
fn renewed<T: Default>(slot: &mut Option<Timed<T>>, now: Instant) -> &mut T {
    let kept = slot.take().filter(|timed| timed.alive(now)).map(|timed| timed.value);
    &mut slot.insert(Timed { until: later(now), value: kept.unwrap_or_default() }).value
}

fn later(now: Instant) -> Instant {
    now + Duration::from_secs(key::TTL_SECONDS)
}

impl Lesson {
    fn holders(&mut self, role: Role) -> &mut Option<Timed<Holders>> {
        match role {
            Role::Teacher => &mut self.teachers,
            Role::Participant | Role::Hub => &mut self.students,
        }
    }

    /// Removes the field if it names this connection, or sets it to its successor.
    fn release(&mut self, user: &UserId, sid: Sid, Successors { teacher, student }: Successors) {
        for (slot, successor) in [(&mut self.teachers, teacher), (&mut self.students, student)] {
            let Some(Timed { value: holders, .. }) = slot else { continue };
            let Ok(place) = holders.binary_search_by(|held| held.0.cmp(user)) else { continue };
            if holders[place].1 != sid {
                continue;
            }
            match successor {
                Some(successor) => holders[place].1 = successor,
                None => drop(holders.remove(place)),
            }
            // As in Redis, a hash without fields does not exist.
            if holders.is_empty() {
                *slot = None;
            }
        }
    }

    /// Removes the user's fields, whatever they contain.
    fn erase(&mut self, user: &UserId) {
        for slot in [&mut self.teachers, &mut self.students] {
            if let Some(Timed { value: holders, .. }) = slot {
                holders.retain(|(holder, _)| holder != user);
            }
            *slot = slot.take().filter(|holders| !holders.value.is_empty());
        }
    }

    fn alive(&self, now: Instant) -> bool {
        let holders = [&self.teachers, &self.students];
        self.seats.as_ref().is_some_and(|seats| seats.alive(now))
            || holders.into_iter().flatten().any(|holders| holders.alive(now))
    }
}

/// A map that checks a few entries at a time, one after the other, and drops expired ones.
#[derive(Debug)]
struct Swept<K, V> {
    entries: BTreeMap<K, V>,
    reached: Option<K>,
}

impl<K, V> Default for Swept<K, V> {
    fn default() -> Self {
        Self { entries: BTreeMap::new(), reached: None }
    }
}

impl<K: Ord + Clone, V> Swept<K, V> {
    fn sweep(&mut self, alive: impl Fn(&V) -> bool) {
        let from = self.reached.as_ref().map_or(Bound::Unbounded, Bound::Excluded);
        let next: Vec<(K, bool)> =
            self.entries.range((from, Bound::Unbounded)).take(UPKEEP).map(|(k, v)| (k.clone(), alive(v))).collect();
        self.reached = if next.len() < UPKEEP { None } else { next.last().map(|(key, _)| key.clone()) };
        for (key, _) in next.iter().filter(|(_, alive)| !alive) {
            self.entries.remove(key);
        }
    }
}

impl Keys {
    fn upkeep(&mut self, now: Instant) {
        self.lessons.sweep(|lesson| lesson.alive(now));
        self.users.sweep(|user| user.alive(now));
    }

    /// Returns whether the user's own key names this connection.
    fn is_holder(&self, KeyEntry { sid, user, .. }: &KeyEntry) -> bool {
        let of_user = user.as_ref().and_then(|(user, _)| self.users.entries.get(user));
        of_user.and_then(|of_user| of_user.value.participant).is_some_and(|(holder, _)| holder == *sid)
    }

    /// Writes a join. With `keep`, existing values stay unchanged. Returns true if a participant's key existed before.
    fn write(&mut self, entry: &KeyEntry, keep: bool, now: Instant) -> bool {
        let lesson = self.lessons.entries.entry(entry.lesson.clone()).or_default();
        let before = lesson.seats.as_ref().filter(|seats| seats.alive(now)).map_or(0, |seats| seats.value);
        let seats = Timed { until: later(now), value: before.max(entry.seats) };
        lesson.seats = Some(seats).filter(|seats| seats.value > 0);
        let Some((user, role)) = &entry.user else { return false };

        let holders = renewed(lesson.holders(*role), now);
        match holders.binary_search_by(|held| held.0.cmp(user)) {
            Ok(place) if !keep => holders[place].1 = entry.sid,
            Ok(_) => {}
            Err(place) => holders.insert(place, (user.clone(), entry.sid)),
        }

        let fresh = || Timed { until: now, value: User::default() };
        let of_user = self.users.entries.entry(user.clone()).or_insert_with(fresh);
        let known = of_user.alive(now);
        if !known {
            of_user.value = User::default();
        }
        of_user.until = later(now);
        let of_user = &mut of_user.value;
        match role {
            Role::Teacher if keep && of_user.lesson.is_some() => {}
            Role::Teacher => of_user.lesson = Some(entry.lesson.clone()),
            _ if keep && of_user.participant.is_some() => {}
            _ => of_user.participant = Some((entry.sid, *role)),
        }
        known && *role != Role::Teacher
    }
}

impl MemoryKeys {
    /// Keys without an entry.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Returns the answers of HGETALL and TTL for a key, or `None` if the key does not exist.
    #[must_use]
    pub fn hash(&self, name: &str) -> Option<(BTreeMap<String, String>, Duration)> {
        let now = Instant::now();
        let keys = self.keys.lock();
        let lesson = |prefix: &str| {
            let id = LessonId::parse(name.strip_prefix(prefix)?).ok()?;
            keys.lessons.entries.get(&id)
        };
        let shown = |holders: &Option<Timed<Holders>>| {
            let holders = holders.as_ref()?;
            Some((holders.until, holders.value.iter().map(|(user, sid)| (user.to_string(), sid.to_string())).collect()))
        };
        let (until, fields): (Instant, BTreeMap<String, String>) = if let Some(lesson) = lesson("lesson_seat_") {
            let seats = lesson.seats.as_ref()?;
            (seats.until, (1..=seats.value).map(|seat| (seat.to_string(), String::new())).collect())
        } else if let Some(lesson) = lesson("lesson_teacher_") {
            shown(&lesson.teachers)?
        } else if let Some(lesson) = lesson("lesson_student_") {
            shown(&lesson.students)?
        } else {
            let id = UserId::parse(name).ok()?;
            let user = keys.users.entries.get(&id)?;
            let mut fields = BTreeMap::new();
            fields.extend(user.value.lesson.iter().map(|lesson| ("lesson_id".to_owned(), lesson.to_string())));
            if let Some((sid, role)) = &user.value.participant {
                let pairs = [("sid", sid.to_string()), ("client_id", id.to_string()), ("role", role.to_string())];
                fields.extend(pairs.map(|(field, value)| (field.to_owned(), value)));
            }
            (user.until, fields)
        };
        (until > now).then(|| (fields, until - now))
    }

    /// Removes all keys, as a flush does.
    pub fn clear(&self) {
        *self.keys.lock() = Keys::default();
    }
}

#[async_trait]
impl LessonKeys for MemoryKeys {
    fn name(&self) -> &'static str {
        "memory"
    }

    async fn ping(&self) -> Result<(), KeysError> {
        Ok(())
    }

    async fn join(&self, entry: &KeyEntry, before: Option<&EarlierField>) -> Result<bool, FailedJoin> {
        let now = Instant::now();
        let mut keys = self.keys.lock();
        keys.upkeep(now);
        let left = before.filter(|before| entry.removes(before));
        if let (Some((user, _)), Some(left)) = (&entry.user, left)
            && let Some(lesson) = keys.lessons.entries.get_mut(&left.lesson)
        {
            lesson.release(user, entry.sid, Successors::default());
        }
        let tried = before.is_none() && keys.is_holder(entry);
        Ok(keys.write(entry, false, now) && !tried)
    }

    async fn remove(&self, stale: &[StaleField]) -> Result<(), KeysError> {
        let now = Instant::now();
        let mut keys = self.keys.lock();
        for StaleField { field, successors } in stale {
            keys.upkeep(now);
            if let Some(lesson) = keys.lessons.entries.get_mut(&field.lesson) {
                lesson.release(&field.user, field.sid, *successors);
            }
        }
        Ok(())
    }

    async fn seats(&self, lesson: &LessonId) -> Result<BTreeMap<u32, String>, KeysError> {
        let (now, keys) = (Instant::now(), self.keys.lock());
        let seats = keys.lessons.entries.get(lesson).and_then(|lesson| lesson.seats.as_ref());
        let seats = seats.filter(|seats| seats.alive(now)).map_or(0, |seats| seats.value);
        Ok((1..=seats).map(|number| (number, String::new())).collect())
    }

    async fn erase(&self, user: &UserId, lessons: &[LessonId]) -> Result<(), KeysError> {
        let mut keys = self.keys.lock();
        keys.users.entries.remove(user);
        for lesson in lessons {
            if let Some(lesson) = keys.lessons.entries.get_mut(lesson) {
                lesson.erase(user);
            }
        }
        Ok(())
    }

    async fn repair(&self, entries: &[KeyEntry]) -> Result<bool, KeysError> {
        let now = Instant::now();
        let mut keys = self.keys.lock();
        for entry in entries {
            keys.upkeep(now);
            keys.write(entry, true, now);
        }
        Ok(true)
    }

    async fn probe(&self, marker: &str) -> Result<bool, KeysError> {
        let now = Instant::now();
        let before = self.keys.lock().markers.insert(marker.to_owned(), later(now));
        Ok(before.is_some_and(|until| until > now))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn entry(number: usize) -> KeyEntry {
        let user = UserId::parse(&format!("user-{number}")).unwrap();
        let lesson = LessonId::parse(&format!("lesson-{}", number / 30)).unwrap();
        KeyEntry { lesson, seats: 30, sid: Sid(number as u128), user: Some((user, Role::Participant)) }
    }

    #[tokio::test(start_paused = true)]
    async fn what_nobody_renews_goes_bit_by_bit() {
        let kv = MemoryKeys::new();
        for number in 0..1000 {
            kv.join(&entry(number), None).await.unwrap();
        }
        tokio::time::advance(Duration::from_secs(key::TTL_SECONDS) + Duration::from_secs(1)).await;
        assert_eq!(kv.hash("user-7"), None, "expired keys are not shown");
        for _ in 0..400 {
            kv.join(&entry(5000), None).await.unwrap();
        }
        let keys = kv.keys.lock();
        assert_eq!((keys.users.entries.len(), keys.lessons.entries.len()), (1, 1));
    }
}
