//! Keys that other services write, too, or lose.
use rollcall_keys::KeyEntry;
use rollcall_schema::Role;

use crate::{
    bench::{InRedis, entry, fresh, hash, lesson, participant, sid, stale},
    on_servers,
};

macro_rules! cases {
    ($($case:ident),* $(,)?) => {
        on_servers!(single: $($case),*);
        on_servers!(cluster: $($case),*);
    };
}

cases! {
    the_seat_maps_values_belong_to_others,
    each_key_that_is_lost_alone_is_projected_and_only_then_anything_is_written,
    what_is_no_hash_holds_up_nobody,
}

async fn the_seat_maps_values_belong_to_others(bench: &InRedis) {
    bench.kv.join(&participant("algebra-1", "alice", 1), None).await.unwrap();
    bench.write("HSET", "lesson_seat_algebra-1", &["2", "alice"]).await;
    bench.kv.join(&participant("algebra-1", "bob", 2), None).await.unwrap();
    bench.kv.repair(&[participant("algebra-1", "bob", 2)]).await.unwrap();
    assert_eq!(fresh(bench, "lesson_seat_algebra-1").await, hash([("1", ""), ("2", "alice"), ("3", "")]));
    bench.write("HSET", "lesson_seat_algebra-1", &["theirs", "x"]).await;
    let seats = bench.kv.seats(&lesson("algebra-1")).await.unwrap();
    assert_eq!(
        seats.into_iter().collect::<Vec<_>>(),
        [(1, ""), (2, "alice"), (3, "")].map(|(n, held)| (n, held.into()))
    );
    bench.write("HDEL", "lesson_seat_algebra-1", &["theirs"]).await;
    bench.write("HDEL", "lesson_seat_algebra-1", &["1"]).await;
    bench.kv.join(&participant("algebra-1", "carol", 3), None).await.unwrap();
    let taken = hash([("2", "alice"), ("3", "")]);
    assert_eq!(fresh(bench, "lesson_seat_algebra-1").await, taken, "the last number is there");
    let raised = KeyEntry { seats: 4, ..participant("algebra-1", "carol", 3) };
    bench.kv.join(&raised, None).await.unwrap();
    let more = hash([("1", ""), ("2", "alice"), ("3", ""), ("4", "")]);
    assert_eq!(fresh(bench, "lesson_seat_algebra-1").await, more);
}

async fn each_key_that_is_lost_alone_is_projected_and_only_then_anything_is_written(bench: &InRedis) {
    let entries = [participant("algebra-1", "alice", 1), entry("algebra-1", "tom", Role::Teacher, 2)];
    assert!(bench.kv.repair(&entries).await.unwrap());
    let keys = ["lesson_seat_algebra-1", "lesson_student_algebra-1", "lesson_teacher_algebra-1", "alice", "tom"];
    for key in keys {
        assert!(!bench.kv.repair(&entries).await.unwrap(), "all is there");
        let before = fresh(bench, key).await;
        bench.write("DEL", key, &[]).await;
        assert!(bench.kv.repair(&entries).await.unwrap(), "{key} is lost");
        assert_eq!(fresh(bench, key).await, before);
    }
    let fields = [("lesson_student_algebra-1", "alice"), ("alice", "sid"), ("alice", "client_id"), ("alice", "role")];
    for (key, field) in fields.into_iter().chain([("tom", "lesson_id")]) {
        let before = fresh(bench, key).await;
        bench.write("HSET", key, &["kept", "1"]).await;
        bench.write("HDEL", key, &[field]).await;
        assert!(bench.kv.repair(&entries).await.unwrap(), "{field} of {key} is lost");
        bench.write("HDEL", key, &["kept"]).await;
        assert_eq!(fresh(bench, key).await, before);
    }
}

async fn what_is_no_hash_holds_up_nobody(bench: &InRedis) {
    let alice = participant("algebra-1", "alice", 1);
    bench.kv.join(&alice, None).await.unwrap();
    bench.write("SET", "lesson_student_geometry-1", &["of another type"]).await;
    let blocked = stale(&participant("geometry-1", "bob", 2), None);
    bench.kv.remove(&[blocked, stale(&alice, None)]).await.unwrap();
    assert_eq!(fresh(bench, "lesson_student_algebra-1").await, None);
    let entries = [participant("geometry-1", "bob", 2), alice];
    bench.kv.repair(&entries).await.unwrap();
    assert_eq!(fresh(bench, "lesson_student_algebra-1").await, hash([("alice", &sid(1))]));
    assert_eq!(fresh(bench, "bob").await.unwrap()["sid"], sid(2), "what can be mended of it");
    let refused = bench.kv.join(&participant("geometry-1", "carol", 3), None).await.unwrap_err().to_string();
    assert!(refused.contains("delete it") && refused.contains("lesson_student_geometry-1"), "{refused}");
}
