//! The keys of PROTOCOL 4: every case runs against each implementation, and reads the keys as another service would.
#![allow(clippy::unwrap_used)]

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use bb8_redis::redis::{Client, aio::MultiplexedConnection, cmd};
use rollcall_loadtest::servers::{self, Redis};
use rollcall_runtime::kv::{Entry, Field, Kv, memory::MemoryKv, redis::RedisKv};
use rollcall_schema::{LessonId, Role, Sid, UserId, key::TTL_SECONDS};
use tokio::time::{Instant, timeout};

type Hash = BTreeMap<String, String>;

/// An implementation, and a view of its keys that does not go through it.
#[async_trait]
trait Bench: Send + Sync {
    fn kv(&self) -> Arc<dyn Kv>;
    /// HGETALL and TTL.
    async fn read(&self, key: &str) -> Option<(Hash, u64)>;
    async fn flush(&self);
}

struct InMemory(Arc<MemoryKv>);

#[async_trait]
impl Bench for InMemory {
    fn kv(&self) -> Arc<dyn Kv> {
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

struct InRedis {
    kv: Arc<RedisKv>,
    prefix: String,
    connection: MultiplexedConnection,
}

impl InRedis {
    async fn at(url: &str, prefix: &str) -> Self {
        let kv = Arc::new(RedisKv::connect(url, prefix).await.unwrap());
        Self { kv, prefix: prefix.to_owned(), connection: raw(url).await }
    }
}

async fn raw(url: &str) -> MultiplexedConnection {
    Client::open(url).unwrap().get_multiplexed_async_connection().await.unwrap()
}

#[async_trait]
impl Bench for InRedis {
    fn kv(&self) -> Arc<dyn Kv> {
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

/// Each case is a function of a bench; it becomes a test for each implementation.
macro_rules! cases {
    ($($case:ident),* $(,)?) => {
        mod memory {
            use super::*;
            $(#[tokio::test]
            async fn $case() {
                super::$case(&InMemory(Arc::new(MemoryKv::new()))).await;
            })*
        }
        mod redis {
            use super::*;
            static NEXT: AtomicU32 = AtomicU32::new(0);
            $(#[tokio::test]
            async fn $case() {
                let prefix = format!("test-{}:", NEXT.fetch_add(1, Ordering::Relaxed));
                super::$case(&InRedis::at(&servers::shared::redis().url(), &prefix).await).await;
            })*
        }
    };
}

cases! {
    a_teachers_join_writes_the_seeds_keys,
    a_participants_join_writes_the_seeds_keys,
    a_guests_join_writes_the_seat_map_only,
    a_lesson_without_seats_has_no_seat_map,
    joining_again_is_known_and_takes_the_field,
    joining_another_lesson_leaves_the_one_before,
    a_lesson_left_keeps_the_field_of_another_connection,
    leaving_removes_only_its_own_field,
    leaving_hands_the_field_to_the_heir,
    what_is_missing_is_projected_and_nothing_else_changes,
    a_hundred_at_once_make_the_seat_map_once,
    the_marker_tells_of_a_flush,
}

fn lesson(id: &str) -> LessonId {
    LessonId::parse(id).unwrap()
}

fn entry(id: &str, user: &str, role: Role, sid: u128) -> Entry {
    Entry { lesson: lesson(id), seats: 3, sid: Sid(sid), user: Some((UserId::parse(user).unwrap(), role)) }
}

fn participant(id: &str, user: &str, sid: u128) -> Entry {
    entry(id, user, Role::Participant, sid)
}

fn field(entry: &Entry) -> Field {
    let (user, role) = entry.user.clone().unwrap();
    Field { lesson: entry.lesson.clone(), user, role, sid: entry.sid }
}

fn hash<const N: usize>(fields: [(&str, &str); N]) -> Option<Hash> {
    Some(fields.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
}

fn sid(number: u128) -> String {
    Sid(number).to_string()
}

/// The hash, whose TTL must be the contract's.
async fn fresh(bench: &dyn Bench, key: &str) -> Option<Hash> {
    let (hash, ttl) = bench.read(key).await?;
    assert!((TTL_SECONDS - 60..=TTL_SECONDS).contains(&ttl), "{key} lives for {ttl} s");
    Some(hash)
}

async fn a_teachers_join_writes_the_seeds_keys(bench: &dyn Bench) {
    let joined = entry("algebra-1", "teacher-1", Role::Teacher, 1);
    assert!(!bench.kv().join(&joined, None).await.unwrap());
    assert_eq!(fresh(bench, "lesson_seat_algebra-1").await, hash([("1", ""), ("2", ""), ("3", "")]));
    assert_eq!(fresh(bench, "lesson_teacher_algebra-1").await, hash([("teacher-1", &sid(1))]));
    assert_eq!(fresh(bench, "teacher-1").await, hash([("lesson_id", "algebra-1")]));
    assert_eq!(fresh(bench, "lesson_student_algebra-1").await, None);
    assert!(!bench.kv().join(&joined, None).await.unwrap(), "reconnect is for participants");
}

async fn a_participants_join_writes_the_seeds_keys(bench: &dyn Bench) {
    assert!(!bench.kv().join(&participant("algebra-1", "a/b+c=", 2), None).await.unwrap());
    assert_eq!(fresh(bench, "lesson_seat_algebra-1").await, hash([("1", ""), ("2", ""), ("3", "")]));
    assert_eq!(fresh(bench, "lesson_student_algebra-1").await, hash([("a/b+c=", &sid(2))]));
    let own = hash([("sid", &sid(2)), ("client_id", "a/b+c="), ("role", "participant")]);
    assert_eq!(fresh(bench, "a/b+c=").await, own);
    assert_eq!(fresh(bench, "lesson_teacher_algebra-1").await, None);
}

async fn a_guests_join_writes_the_seat_map_only(bench: &dyn Bench) {
    let guest = Entry { user: None, ..participant("algebra-1", "nobody", 3) };
    assert!(!bench.kv().join(&guest, Some(&lesson("geometry-1"))).await.unwrap());
    assert_eq!(fresh(bench, "lesson_seat_algebra-1").await, hash([("1", ""), ("2", ""), ("3", "")]));
    for key in ["lesson_student_algebra-1", "lesson_teacher_algebra-1", "nobody"] {
        assert_eq!(fresh(bench, key).await, None);
    }
}

async fn a_lesson_without_seats_has_no_seat_map(bench: &dyn Bench) {
    bench.kv().join(&Entry { seats: 0, ..participant("lecture", "alice", 4) }, None).await.unwrap();
    assert_eq!(fresh(bench, "lesson_seat_lecture").await, None);
    assert_eq!(fresh(bench, "lesson_student_lecture").await, hash([("alice", &sid(4))]));
}

async fn joining_again_is_known_and_takes_the_field(bench: &dyn Bench) {
    assert!(!bench.kv().join(&participant("algebra-1", "alice", 1), None).await.unwrap());
    assert!(bench.kv().join(&participant("algebra-1", "alice", 2), None).await.unwrap());
    assert_eq!(fresh(bench, "lesson_student_algebra-1").await, hash([("alice", &sid(2))]));
    assert_eq!(fresh(bench, "alice").await.unwrap()["sid"], sid(2));
}

async fn joining_another_lesson_leaves_the_one_before(bench: &dyn Bench) {
    let (first, second) = (lesson("algebra-1"), lesson("geometry-1"));
    bench.kv().join(&participant("algebra-1", "bob", 9), None).await.unwrap();
    bench.kv().join(&participant("algebra-1", "alice", 1), None).await.unwrap();
    bench.kv().join(&participant("geometry-1", "alice", 1), Some(&first)).await.unwrap();
    assert_eq!(fresh(bench, "lesson_student_algebra-1").await, hash([("bob", &sid(9))]));
    assert_eq!(fresh(bench, "lesson_student_geometry-1").await, hash([("alice", &sid(1))]));

    let carol = |id| entry(id, "carol", Role::Teacher, 5);
    bench.kv().join(&carol("algebra-1"), None).await.unwrap();
    bench.kv().join(&carol("geometry-1"), Some(&first)).await.unwrap();
    assert_eq!(fresh(bench, "lesson_teacher_algebra-1").await, None);
    assert_eq!(fresh(bench, "carol").await, hash([("lesson_id", "geometry-1")]));

    bench.kv().join(&carol("geometry-1"), Some(&second)).await.unwrap();
    assert_eq!(fresh(bench, "lesson_teacher_geometry-1").await, hash([("carol", &sid(5))]), "the same lesson again");
}

async fn a_lesson_left_keeps_the_field_of_another_connection(bench: &dyn Bench) {
    bench.kv().join(&participant("algebra-1", "alice", 1), None).await.unwrap();
    bench.kv().join(&participant("algebra-1", "alice", 2), None).await.unwrap();
    bench.kv().join(&participant("geometry-1", "alice", 1), Some(&lesson("algebra-1"))).await.unwrap();
    assert_eq!(fresh(bench, "lesson_student_algebra-1").await, hash([("alice", &sid(2))]));
}

async fn leaving_removes_only_its_own_field(bench: &dyn Bench) {
    let (old, new) = (participant("algebra-1", "alice", 1), participant("algebra-1", "alice", 2));
    bench.kv().join(&old, None).await.unwrap();
    bench.kv().join(&new, None).await.unwrap();
    bench.kv().leave(&field(&old), None).await.unwrap();
    assert_eq!(fresh(bench, "lesson_student_algebra-1").await, hash([("alice", &sid(2))]));
    bench.kv().leave(&field(&old), Some(Sid(7))).await.unwrap();
    assert_eq!(fresh(bench, "lesson_student_algebra-1").await, hash([("alice", &sid(2))]), "no heir of another's");
    bench.kv().leave(&field(&new), None).await.unwrap();
    assert_eq!(fresh(bench, "lesson_student_algebra-1").await, None);
    assert!(fresh(bench, "alice").await.is_some(), "the client's own key stays");
    bench.kv().leave(&field(&new), None).await.unwrap();

    let teacher = entry("algebra-1", "tom", Role::Teacher, 3);
    bench.kv().join(&teacher, None).await.unwrap();
    bench.kv().leave(&field(&teacher), None).await.unwrap();
    assert_eq!(fresh(bench, "lesson_teacher_algebra-1").await, None);
}

async fn leaving_hands_the_field_to_the_heir(bench: &dyn Bench) {
    let joined = participant("algebra-1", "alice", 1);
    bench.kv().join(&joined, None).await.unwrap();
    bench.kv().leave(&field(&joined), Some(Sid(8))).await.unwrap();
    assert_eq!(fresh(bench, "lesson_student_algebra-1").await, hash([("alice", &sid(8))]));
}

async fn what_is_missing_is_projected_and_nothing_else_changes(bench: &dyn Bench) {
    bench.kv().join(&participant("algebra-1", "alice", 1), None).await.unwrap();
    let entries = [
        // Another connection holds the field: it stays.
        participant("algebra-1", "alice", 99),
        participant("algebra-1", "bob", 2),
        entry("algebra-1", "carol", Role::Teacher, 3),
        Entry { user: None, ..participant("geometry-1", "nobody", 4) },
    ];
    bench.kv().project(&entries).await.unwrap();
    let students = hash([("alice", &sid(1)), ("bob", &sid(2))]);
    assert_eq!(fresh(bench, "lesson_student_algebra-1").await, students);
    assert_eq!(fresh(bench, "alice").await.unwrap()["sid"], sid(1));
    assert_eq!(fresh(bench, "bob").await.unwrap()["role"], "participant");
    assert_eq!(fresh(bench, "carol").await, hash([("lesson_id", "algebra-1")]));
    assert_eq!(fresh(bench, "lesson_seat_geometry-1").await.unwrap().len(), 3);

    bench.flush().await;
    bench.kv().project(&entries).await.unwrap();
    assert_eq!(fresh(bench, "lesson_student_algebra-1").await, hash([("alice", &sid(99)), ("bob", &sid(2))]));
    assert_eq!(fresh(bench, "lesson_teacher_algebra-1").await, hash([("carol", &sid(3))]));
    assert_eq!(fresh(bench, "lesson_seat_algebra-1").await.unwrap().len(), 3);

    let many: Vec<Entry> = (0..1000_u32).map(|n| participant("algebra-1", &format!("user-{n}"), n.into())).collect();
    bench.kv().project(&many).await.unwrap();
    assert_eq!(fresh(bench, "lesson_student_algebra-1").await.unwrap().len(), 1002);
    bench.kv().project(&[]).await.unwrap();
}

async fn a_hundred_at_once_make_the_seat_map_once(bench: &dyn Bench) {
    let joins = (0..100_u32).map(|n| {
        let kv = bench.kv();
        // Each would make it another size.
        let joined = Entry { seats: 30 + n, ..participant("algebra-1", &format!("user-{n}"), n.into()) };
        tokio::spawn(async move { kv.join(&joined, None).await })
    });
    for join in joins.collect::<Vec<_>>() {
        assert!(!join.await.unwrap().unwrap());
    }
    let seats = fresh(bench, "lesson_seat_algebra-1").await.unwrap();
    assert!((30..130).contains(&seats.len()) && seats.values().all(String::is_empty));
    bench.kv().join(&Entry { seats: 500, ..participant("algebra-1", "late", 1000) }, None).await.unwrap();
    assert_eq!(fresh(bench, "lesson_seat_algebra-1").await.unwrap(), seats);
    assert_eq!(fresh(bench, "lesson_student_algebra-1").await.unwrap().len(), 101);
}

async fn the_marker_tells_of_a_flush(bench: &dyn Bench) {
    let kv = bench.kv();
    assert!(!kv.probe("rollcall_marker_1").await.unwrap());
    assert!(kv.probe("rollcall_marker_1").await.unwrap());
    assert!(!kv.probe("rollcall_marker_2").await.unwrap(), "each process has its own");
    bench.flush().await;
    assert!(!kv.probe("rollcall_marker_1").await.unwrap());
    assert!(kv.probe("rollcall_marker_1").await.unwrap());
}

/// Asks until it goes well, and returns how long that took.
async fn recovered(kv: &RedisKv) -> Duration {
    let since = Instant::now();
    while let Err(error) = kv.join(&participant("algebra-1", "alice", 1), None).await {
        assert!(since.elapsed() < Duration::from_secs(10), "{error}");
    }
    since.elapsed()
}

/// A failing call, which must not take longer than the contract allows.
async fn fails_in_time(kv: &RedisKv) {
    let joined = participant("algebra-1", "alice", 1);
    let answer = timeout(Duration::from_millis(1600), kv.join(&joined, None)).await;
    answer.expect("an answer in time").expect_err("Redis is away");
}

#[tokio::test]
async fn keys_have_no_prefix_by_default() {
    let server = Redis::start().unwrap();
    let kv = RedisKv::connect(&server.url(), "").await.unwrap();
    kv.join(&participant("algebra-1", "alice", 1), None).await.unwrap();
    kv.join(&entry("algebra-1", "tom", Role::Teacher, 2), None).await.unwrap();
    let mut keys: Vec<String> = cmd("KEYS").arg("*").query_async(&mut raw(&server.url()).await).await.unwrap();
    keys.sort();
    assert_eq!(keys, ["alice", "lesson_seat_algebra-1", "lesson_student_algebra-1", "lesson_teacher_algebra-1", "tom"]);
}

#[tokio::test]
async fn the_seat_maps_values_belong_to_others() {
    let bench = InRedis::at(&servers::shared::redis().url(), "others:").await;
    bench.kv.join(&participant("algebra-1", "alice", 1), None).await.unwrap();
    let mut seat = cmd("HSET");
    seat.arg("others:lesson_seat_algebra-1").arg(2).arg("alice");
    seat.exec_async(&mut bench.connection.clone()).await.unwrap();
    bench.kv.join(&participant("algebra-1", "bob", 2), None).await.unwrap();
    bench.kv.project(&[participant("algebra-1", "bob", 2)]).await.unwrap();
    assert_eq!(fresh(&bench, "lesson_seat_algebra-1").await, hash([("1", ""), ("2", "alice"), ("3", "")]));
}

#[tokio::test]
async fn a_server_that_forgot_the_scripts_gets_them_again() {
    let server = Redis::start().unwrap();
    let bench = InRedis::at(&server.url(), "").await;
    let forget = async || cmd("SCRIPT").arg("FLUSH").exec_async(&mut bench.connection.clone()).await.unwrap();
    let alice = participant("algebra-1", "alice", 1);
    forget().await;
    bench.kv.join(&alice, None).await.unwrap();
    forget().await;
    bench.kv.project(&[alice.clone(), participant("algebra-1", "bob", 2)]).await.unwrap();
    forget().await;
    bench.kv.leave(&field(&alice), None).await.unwrap();
    assert_eq!(fresh(&bench, "lesson_student_algebra-1").await, hash([("bob", &sid(2))]));
}

#[tokio::test]
async fn a_killed_server_is_told_in_time_and_found_again() {
    let mut server = Redis::start().unwrap();
    let kv = RedisKv::connect(&server.url(), "").await.unwrap();
    assert!(!kv.probe("marker").await.unwrap());
    server.kill().unwrap();
    fails_in_time(&kv).await;
    fails_in_time(&kv).await;
    server.restart().unwrap();
    assert!(recovered(&kv).await < Duration::from_secs(3));
    assert!(!kv.probe("marker").await.unwrap(), "it came back empty");
}

#[tokio::test]
async fn a_restart_between_two_calls_goes_unnoticed() {
    let mut server = Redis::start().unwrap();
    let kv = RedisKv::connect(&server.url(), "").await.unwrap();
    server.restart().unwrap();
    kv.join(&participant("algebra-1", "alice", 1), None).await.unwrap();
}

#[tokio::test]
async fn a_stopped_server_hangs_nothing_and_is_found_again() {
    let server = Redis::start().unwrap();
    let kv = Arc::new(RedisKv::connect(&server.url(), "").await.unwrap());
    server.pause().unwrap();
    let calls = (0..200).map(|_| {
        let kv = kv.clone();
        tokio::spawn(async move { fails_in_time(&kv).await })
    });
    for call in calls.collect::<Vec<_>>() {
        call.await.unwrap();
    }
    fails_in_time(&kv).await;
    server.resume().unwrap();
    assert!(recovered(&kv).await < Duration::from_secs(3));
}

#[tokio::test]
async fn a_server_that_is_away_at_the_start_is_an_error_without_the_password() {
    let mut server = Redis::start().unwrap();
    server.kill().unwrap();
    let url = format!("redis://:canary@127.0.0.1:{}", server.port());
    for url in [url.as_str(), "nonsense://canary", "redis://canary:canary@[::1:1"] {
        let error = timeout(Duration::from_secs(2), RedisKv::connect(url, "")).await.unwrap().err().unwrap();
        assert!(!error.to_string().contains("canary"), "{error}");
    }
}
