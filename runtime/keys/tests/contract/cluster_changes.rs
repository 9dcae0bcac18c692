//! Changes of a cluster: masters die, hang and are replaced, slots move, and joins fail on one node only.
use std::time::Duration;

use rollcall_keys::{FailedJoin, KeyEntry, KeyField, RedisOptions};
use rollcall_loadtest::servers::{Authority, RedisCluster, RedisTls, shared, tell_redis};
use rollcall_schema::Role;
use tokio::{
    runtime::Handle,
    task::block_in_place,
    time::{Instant, timeout},
};

use crate::{
    bench::{Bench, InRedis, earlier, entry, fresh, hash, lesson, options, participant, sid, stale},
    failover::heals,
    kinds::{self, client_tls},
};

const MARKER: &str = "rollcall:marker:1";
const STUDENTS: &str = "lesson_student_algebra-1";

/// Returns a user whose own key is on a node other than this one.
fn user_elsewhere(cluster: &RedisCluster, than: usize, name: &str) -> String {
    let mut users = (0..).map(|number| format!("{name}-{number}"));
    users.find(|user| cluster.master_of(user).unwrap() != than).unwrap()
}

/// Expects that a join in a lesson whose node is away fails in time, and leaves nothing on the other nodes.
async fn fails_and_is_undone(bench: &InRedis, joined: &KeyEntry) {
    let answer = timeout(Duration::from_secs(2), bench.kv.join(joined, None)).await;
    answer.expect("an answer in time").expect_err("a node is away");
    let (user, _) = joined.user.as_ref().unwrap();
    assert_eq!(fresh(bench, user.as_str()).await, None);
}

#[tokio::test]
async fn masters_of_a_cluster_with_tls_are_replaced() {
    let authority = Authority::new().unwrap();
    let server = authority.issue(&["127.0.0.1"]).unwrap();
    let tls = RedisTls { authority: &authority, server: &server, asks_clients: true };
    let mut cluster = RedisCluster::start(Some(tls)).unwrap();
    let options = RedisOptions { tls: client_tls(&authority, Some(&server)), ..options(cluster.url(), "") };
    let bench = InRedis::of(options, cluster.ports()).await;
    let kv = bench.kv();
    let alice = participant("algebra-1", "alice", 1);
    kv.join(&alice, None).await.unwrap();
    assert!(!kv.probe(MARKER).await.unwrap());
    assert!(kv.probe(MARKER).await.unwrap());

    // As for maintenance, the replica takes over with all data.
    cluster.fail_over(cluster.master_of(STUDENTS).unwrap()).unwrap();
    kv.join(&alice, None).await.unwrap();
    noticed(&bench).await;

    let master = cluster.master_of(STUDENTS).unwrap();
    let bob = participant("algebra-1", &user_elsewhere(&cluster, master, "bob"), 2);
    cluster.let_replicas_take_over(false).unwrap();
    cluster.node(master).kill().unwrap();
    fails_and_is_undone(&bench, &bob).await;
    cluster.let_replicas_take_over(true).unwrap();
    // Once the key has a master again, its replica has taken over.
    cluster.master_of(STUDENTS).unwrap();
    heals(&*kv).await;
    noticed(&bench).await;
    cluster.node(master).restart().unwrap();

    let master = cluster.master_of("lesson_student_geometry-2").unwrap();
    let carol = participant("geometry-2", &user_elsewhere(&cluster, master, "carol"), 3);
    cluster.let_replicas_take_over(false).unwrap();
    cluster.node(master).pause().unwrap();
    fails_and_is_undone(&bench, &carol).await;
    cluster.let_replicas_take_over(true).unwrap();
    let since = Instant::now();
    while let Err(FailedJoin { error, .. }) = kv.join(&carol, None).await {
        // The cluster takes this long to notice the failure, and to vote for the replica.
        assert!(since.elapsed() < Duration::from_secs(20), "{error}");
    }
    cluster.node(master).resume().unwrap();
    heals(&*kv).await;
    noticed(&bench).await;
    keeps_what_another_join_wrote(&bench, &mut cluster).await;
    kv.remove(&[stale(&alice, None), stale(&carol, None)]).await.unwrap();
    assert_eq!(fresh(&bench, STUDENTS).await, None);
    kv.ping().await.unwrap();
}

/// Two connections of a teacher join a lesson. One of the joins fails, because it leaves a lesson whose node hangs.
/// What the other join wrote stays.
async fn keeps_what_another_join_wrote(bench: &InRedis, cluster: &mut RedisCluster) {
    let hangs = cluster.master_of("lesson_teacher_left").unwrap();
    let elsewhere = |key: &String| cluster.master_of(key).unwrap() != hangs;
    let mut users = (0..).map(|number| format!("tom-{number}"));
    let user = users.find(|user| elsewhere(user)).unwrap();
    let mut lessons = (0..).map(|number| format!("joined-{number}"));
    let keys = ["seat", "teacher"].map(|kind| move |id: &str| format!("lesson_{kind}_{id}"));
    let joined = lessons.find(|id| keys.iter().all(|key| elsewhere(&key(id)))).unwrap();
    let left = entry("left", &user, Role::Teacher, 1);
    let (moves, stays) = (entry(&joined, &user, Role::Teacher, 1), entry(&joined, &user, Role::Teacher, 2));
    bench.kv.join(&left, None).await.unwrap();
    cluster.let_replicas_take_over(false).unwrap();
    cluster.node(hangs).pause().unwrap();
    let before = earlier(&left);
    let (moved, stayed) = tokio::join!(bench.kv.join(&moves, Some(&before)), bench.kv.join(&stays, None));
    assert!(moved.is_err() && stayed.is_ok(), "{moved:?} {stayed:?}");
    assert_eq!(fresh(bench, &user).await, hash([("lesson_id", &joined)]));
    cluster.node(hangs).resume().unwrap();
    cluster.let_replicas_take_over(true).unwrap();
    heals(&*bench.kv).await;
}

/// Expects that a new master is noticed once, by its replication's id.
async fn noticed(bench: &InRedis) {
    let since = Instant::now();
    let kept = loop {
        match bench.kv.probe(MARKER).await {
            Ok(kept) => break kept,
            Err(error) => assert!(since.elapsed() < Duration::from_secs(10), "{error}"),
        }
    };
    assert!(!kept, "writes may be lost");
    assert!(bench.kv.probe(MARKER).await.unwrap(), "and noticed once");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slot_may_move_under_joins() {
    let (bench, cluster) = (kinds::cluster().await, shared::redis_cluster());
    let alice = participant("moved-1", "alice", 1);
    bench.kv.join(&alice, None).await.unwrap();
    assert!(!bench.kv.probe(MARKER).await.unwrap());
    let key = bench.name("lesson_student_moved-1");
    let from = cluster.master_of(&key).unwrap();
    let to = (0..3).find(|number| *number != from).unwrap();
    let meanwhile = || {
        block_in_place(|| {
            Handle::current().block_on(async {
                // The command goes to the node that still has the hash.
                bench.kv.join(&participant("moved-1", "bob", 2), None).await.unwrap();
                // The hash is gone, so the command goes to the node that gets the slot, and makes the hash there.
                bench.write("DEL", "lesson_student_moved-1", &[]).await;
                bench.kv.join(&participant("moved-1", "carol", 3), None).await.unwrap();
                bench.kv.repair(std::slice::from_ref(&alice)).await.unwrap();
            });
        });
    };
    cluster.move_slot(&key, to, meanwhile).unwrap();
    bench.kv.remove(&[stale(&alice, Some(9))]).await.unwrap();
    let students = hash([("alice", &sid(9)), ("carol", &sid(3))]);
    assert_eq!(fresh(&bench, "lesson_student_moved-1").await, students);
    bench.kv.join(&participant("moved-1", "dora", 4), None).await.unwrap();
    bench.kv.ping().await.unwrap();
}

#[tokio::test]
async fn a_join_that_one_node_refuses_is_undone_on_the_others() {
    let bench = kinds::cluster().await;
    let algebra = lesson("algebra-1");
    bench.kv.join(&participant("algebra-1", "alice", 2), None).await.unwrap();
    let own = fresh(&bench, "alice").await;
    // The key of the lesson that is left is not a hash, so that part of the join is refused.
    bench.write("SET", "lesson_teacher_geometry-1", &["of another type"]).await;
    let (moves, geometry) =
        (participant("algebra-1", "alice", 1), earlier(&entry("geometry-1", "alice", Role::Teacher, 1)));
    let FailedJoin { unsettled, error } = bench.kv.join(&moves, Some(&geometry)).await.unwrap_err();
    assert!(error.to_string().contains("WRONGTYPE"), "{error}");
    assert_eq!(fresh(&bench, "lesson_student_algebra-1").await, hash([("alice", &sid(2))]));
    assert_eq!(fresh(&bench, "alice").await, own);
    let (user, _) = moves.user.clone().unwrap();
    let other = stale(&participant("algebra-1", "alice", 2), None).field;
    assert_eq!(unsettled, Some(KeyField { lesson: algebra.clone(), user, sid: other.sid }));

    let dora = entry("algebra-1", "dora", Role::Teacher, 5);
    bench.kv.join(&dora, Some(&geometry)).await.unwrap_err();
    assert_eq!(fresh(&bench, "dora").await, None);
    assert_eq!(fresh(&bench, "lesson_teacher_algebra-1").await, None);
    // The same lesson is joined again. The existing values are the connection's own.
    bench.write("DEL", "lesson_teacher_geometry-1", &[]).await;
    bench.kv.join(&dora, None).await.unwrap();
    bench.write("SET", "lesson_seat_algebra-2", &["of another type"]).await;
    let emil = |lesson| participant(lesson, "emil", 6);
    bench.kv.join(&emil("algebra-2"), None).await.unwrap();
    // The key of the joined lesson's students is not a hash. The field of the lesson that was to be left is there
    // again, even if an earlier attempt has removed it.
    bench.write("SET", "lesson_student_algebra-3", &["of another type"]).await;
    let left = hash([("emil", &sid(6))]);
    for _ in 0..2 {
        bench.kv.join(&emil("algebra-3"), Some(&earlier(&emil("algebra-2")))).await.unwrap_err();
        assert_eq!(fresh(&bench, "lesson_student_algebra-2").await, left);
        bench.write("HDEL", "lesson_student_algebra-2", &["emil"]).await;
    }
}

/// A join of alice whose first attempt was carried out, over another connection's field, and not answered. The second
/// attempt fails.
#[tokio::test]
async fn a_join_that_was_sent_twice_takes_nobodys_field_with_it() {
    let bench = kinds::cluster().await;
    let geometry = earlier(&entry("geometry-1", "alice", Role::Teacher, 1));
    let (other, moves) = (participant("algebra-1", "alice", 2), participant("algebra-1", "alice", 1));
    bench.kv.join(&other, None).await.unwrap();
    bench.write("HSET", "lesson_student_algebra-1", &["alice", &sid(1)]).await;
    bench.write("HSET", "alice", &["sid", &sid(1)]).await;
    // The key of the teachers of the lesson that is left is not a hash.
    bench.write("SET", "lesson_teacher_geometry-1", &["of another type"]).await;
    let FailedJoin { unsettled, .. } = bench.kv.join(&moves, Some(&geometry)).await.unwrap_err();
    assert_eq!(fresh(&bench, "lesson_student_algebra-1").await, hash([("alice", &sid(1))]), "it may be the other's");
    let own = hash([("sid", &sid(1)), ("client_id", "alice"), ("role", "participant")]);
    assert_eq!(fresh(&bench, "alice").await, own);
    // The removal that SQL would make then.
    let settled = stale(&moves, Some(2));
    assert_eq!(unsettled.as_ref(), Some(&settled.field));
    bench.kv.remove(&[settled]).await.unwrap();
    assert_eq!(fresh(&bench, "lesson_student_algebra-1").await, hash([("alice", &sid(2))]));
    let FailedJoin { unsettled, .. } =
        bench.kv.join(&participant("algebra-1", "bob", 3), Some(&geometry)).await.unwrap_err();
    assert_eq!((unsettled, fresh(&bench, "bob").await), (None, None), "all of it was this join's");
}

#[tokio::test]
async fn nodes_that_forgot_the_scripts_get_them_again() {
    let (bench, cluster) = (kinds::cluster().await, shared::redis_cluster());
    for _ in 0..2 {
        for port in cluster.ports() {
            tell_redis(port, "SCRIPT FLUSH").unwrap();
        }
        bench.kv.join(&participant("algebra-1", "alice", 1), None).await.unwrap();
        bench.kv.remove(&[stale(&participant("algebra-1", "alice", 1), None)]).await.unwrap();
    }
    assert_eq!(fresh(&bench, "lesson_student_algebra-1").await, None);
}

#[tokio::test]
async fn a_url_of_the_wrong_kind_is_told() {
    let (cluster, single) = (shared::redis_cluster(), shared::redis());
    let said =
        async |url: String, prefix: &str| rollcall_keys::connect(options(url, prefix)).await.err().unwrap().to_string();
    let alone = said(format!("redis://127.0.0.1:{}", cluster.ports()[0]), "").await;
    assert!(alone.contains("begin REDIS_URL with redis+cluster"), "{alone}");
    let no_node = said(single.url().replace("redis:", "redis+cluster:"), "").await;
    assert!(no_node.contains("no node of a cluster: begin REDIS_URL with redis"), "{no_node}");
    let braces = said(cluster.url(), "{app}:").await;
    assert!(braces.contains("leave the braces out of ROLLCALL_REDIS_PREFIX"), "{braces}");
}
