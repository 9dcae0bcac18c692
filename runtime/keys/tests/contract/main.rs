//! The keys of PROTOCOL 4: every case runs against each implementation, and reads the keys as another service would.
#![allow(clippy::unwrap_used)]

mod bench;
mod certificates;
mod cluster_changes;
mod failover;
mod faults;
mod kinds;
mod rights;
mod sentinel_failover;
mod shared_keys;

use std::sync::Arc;

use bench::{Bench, Hash, InMemory, earlier, entry, fresh, hash, participant, sid, stale};
use rollcall_keys::{EarlierField, KeyEntry, StaleField, Successors, memory::MemoryKeys};
use rollcall_schema::{Role, Sid};

/// Each case is a function of a bench. The macro makes each case a test for each implementation, and for each kind of
/// servers.
macro_rules! cases {
    ($($case:ident),* $(,)?) => {
        mod memory {
            use super::*;
            $(#[tokio::test]
            async fn $case() {
                super::$case(&InMemory(Arc::new(MemoryKeys::new()))).await;
            })*
        }
        on_servers!(single: $($case),*);
        on_servers!(tls: $($case),*);
        on_servers!(sentinel: $($case),*);
        on_servers!(cluster: $($case),*);
    };
}

/// Each case is a function of a bench with servers. The macro makes each case a test on this kind.
macro_rules! on_servers {
    ($kind:ident: $($case:ident),* $(,)?) => {
        mod $kind {
            $(#[tokio::test]
            async fn $case() {
                super::$case(&$crate::kinds::$kind().await).await;
            })*
        }
    };
}
pub(crate) use on_servers;

cases! {
    a_teachers_join_writes_the_seeds_keys,
    a_participants_join_writes_the_seeds_keys,
    a_guests_join_writes_the_seat_map_only,
    a_lesson_without_seats_has_no_seat_map,
    joining_again_is_known_and_takes_the_field,
    a_try_that_failed_does_not_count_as_having_been_there,
    joining_another_lesson_leaves_the_one_before,
    a_lesson_left_keeps_the_field_of_another_connection,
    a_removal_takes_its_own_field_only,
    a_field_that_stays_is_left_to_its_removal,
    a_removal_sets_the_field_to_the_successor,
    a_successor_gets_the_field_of_its_own_role,
    many_fields_are_removed_at_once,
    a_repair_makes_what_is_missing_and_changes_nothing_else,
    a_hundred_at_once_make_the_seat_map_once,
    seats_that_are_added_later_are_in_the_map,
    the_marker_tells_of_a_flush,
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
    let guest = KeyEntry { user: None, ..participant("algebra-1", "nobody", 3) };
    assert!(!bench.kv().join(&guest, Some(&earlier(&participant("geometry-1", "nobody", 3)))).await.unwrap());
    assert_eq!(fresh(bench, "lesson_seat_algebra-1").await, hash([("1", ""), ("2", ""), ("3", "")]));
    for key in ["lesson_student_algebra-1", "lesson_teacher_algebra-1", "nobody"] {
        assert_eq!(fresh(bench, key).await, None);
    }
}

async fn a_lesson_without_seats_has_no_seat_map(bench: &dyn Bench) {
    bench.kv().join(&KeyEntry { seats: 0, ..participant("lecture", "alice", 4) }, None).await.unwrap();
    assert_eq!(fresh(bench, "lesson_seat_lecture").await, None);
    assert_eq!(fresh(bench, "lesson_student_lecture").await, hash([("alice", &sid(4))]));
}

async fn joining_again_is_known_and_takes_the_field(bench: &dyn Bench) {
    assert!(!bench.kv().join(&participant("algebra-1", "alice", 1), None).await.unwrap());
    assert!(bench.kv().join(&participant("algebra-1", "alice", 2), None).await.unwrap());
    assert_eq!(fresh(bench, "lesson_student_algebra-1").await, hash([("alice", &sid(2))]));
    assert_eq!(fresh(bench, "alice").await.unwrap()["sid"], sid(2));
}

async fn a_try_that_failed_does_not_count_as_having_been_there(bench: &dyn Bench) {
    let alice = |sid| participant("algebra-1", "alice", sid);
    assert!(!bench.kv().join(&alice(1), None).await.unwrap());
    assert!(!bench.kv().join(&alice(1), None).await.unwrap(), "by this connection");
    assert!(bench.kv().join(&alice(2), None).await.unwrap(), "by another one");
    assert!(bench.kv().join(&alice(2), Some(&earlier(&alice(2)))).await.unwrap(), "after a join that did not fail");
}

async fn joining_another_lesson_leaves_the_one_before(bench: &dyn Bench) {
    let alice = |id| participant(id, "alice", 1);
    bench.kv().join(&participant("algebra-1", "bob", 9), None).await.unwrap();
    bench.kv().join(&alice("algebra-1"), None).await.unwrap();
    bench.kv().join(&alice("geometry-1"), Some(&earlier(&alice("algebra-1")))).await.unwrap();
    assert_eq!(fresh(bench, "lesson_student_algebra-1").await, hash([("bob", &sid(9))]));
    assert_eq!(fresh(bench, "lesson_student_geometry-1").await, hash([("alice", &sid(1))]));

    let carol = |id| entry(id, "carol", Role::Teacher, 5);
    bench.kv().join(&carol("algebra-1"), None).await.unwrap();
    bench.kv().join(&carol("geometry-1"), Some(&earlier(&carol("algebra-1")))).await.unwrap();
    assert_eq!(fresh(bench, "lesson_teacher_algebra-1").await, None);
    assert_eq!(fresh(bench, "carol").await, hash([("lesson_id", "geometry-1")]));

    bench.kv().join(&carol("geometry-1"), Some(&earlier(&carol("geometry-1")))).await.unwrap();
    assert_eq!(fresh(bench, "lesson_teacher_geometry-1").await, hash([("carol", &sid(5))]), "the same lesson again");
}

async fn a_field_that_stays_is_left_to_its_removal(bench: &dyn Bench) {
    let (before, after) = (participant("algebra-1", "alice", 1), participant("geometry-1", "alice", 1));
    bench.kv().join(&before, None).await.unwrap();
    let stays = EarlierField { stays: true, ..earlier(&before) };
    assert!(bench.kv().join(&after, Some(&stays)).await.unwrap(), "after a join that did not fail");
    assert_eq!(fresh(bench, "lesson_student_algebra-1").await, hash([("alice", &sid(1))]));
    bench.kv().remove(&[stale(&before, Some(2))]).await.unwrap();
    assert_eq!(fresh(bench, "lesson_student_algebra-1").await, hash([("alice", &sid(2))]));
    assert_eq!(fresh(bench, "lesson_student_geometry-1").await, hash([("alice", &sid(1))]));
}

async fn a_lesson_left_keeps_the_field_of_another_connection(bench: &dyn Bench) {
    bench.kv().join(&participant("algebra-1", "alice", 1), None).await.unwrap();
    bench.kv().join(&participant("algebra-1", "alice", 2), None).await.unwrap();
    bench
        .kv()
        .join(&participant("geometry-1", "alice", 1), Some(&earlier(&participant("algebra-1", "alice", 1))))
        .await
        .unwrap();
    assert_eq!(fresh(bench, "lesson_student_algebra-1").await, hash([("alice", &sid(2))]));
}

async fn a_removal_takes_its_own_field_only(bench: &dyn Bench) {
    let (old, new) = (participant("algebra-1", "alice", 1), participant("algebra-1", "alice", 2));
    bench.kv().join(&old, None).await.unwrap();
    bench.kv().join(&new, None).await.unwrap();
    bench.kv().remove(&[stale(&old, None)]).await.unwrap();
    assert_eq!(fresh(bench, "lesson_student_algebra-1").await, hash([("alice", &sid(2))]));
    bench.kv().remove(&[stale(&old, Some(7))]).await.unwrap();
    assert_eq!(fresh(bench, "lesson_student_algebra-1").await, hash([("alice", &sid(2))]), "no successor of another's");
    bench.kv().remove(&[stale(&new, None)]).await.unwrap();
    assert_eq!(fresh(bench, "lesson_student_algebra-1").await, None);
    assert!(fresh(bench, "alice").await.is_some(), "the client's own key stays");
    bench.kv().remove(&[stale(&new, None)]).await.unwrap();

    let teacher = entry("algebra-1", "tom", Role::Teacher, 3);
    bench.kv().join(&teacher, None).await.unwrap();
    bench.kv().remove(&[stale(&teacher, None)]).await.unwrap();
    assert_eq!(fresh(bench, "lesson_teacher_algebra-1").await, None);
}

async fn a_removal_sets_the_field_to_the_successor(bench: &dyn Bench) {
    let joined = participant("algebra-1", "alice", 1);
    bench.kv().join(&joined, None).await.unwrap();
    bench.kv().remove(&[stale(&joined, Some(8))]).await.unwrap();
    assert_eq!(fresh(bench, "lesson_student_algebra-1").await, hash([("alice", &sid(8))]));
}

async fn a_successor_gets_the_field_of_its_own_role(bench: &dyn Bench) {
    let (teaches, learns) = (entry("algebra-1", "alice", Role::Teacher, 1), participant("algebra-1", "alice", 2));
    bench.kv().join(&teaches, None).await.unwrap();
    bench.kv().join(&learns, None).await.unwrap();
    let StaleField { field, .. } = stale(&teaches, None);
    let successors = Successors { teacher: None, student: Some(Sid(2)) };
    bench.kv().remove(&[StaleField { field, successors }]).await.unwrap();
    assert_eq!(fresh(bench, "lesson_teacher_algebra-1").await, None);
    assert_eq!(fresh(bench, "lesson_student_algebra-1").await, hash([("alice", &sid(2))]));
}

async fn many_fields_are_removed_at_once(bench: &dyn Bench) {
    let joined: Vec<KeyEntry> =
        (0..500_u32).map(|n| participant("algebra-1", &format!("user-{n}"), n.into())).collect();
    bench.kv().repair(&joined).await.unwrap();
    let (left, stay) = joined.split_at(499);
    let left: Vec<_> = left.iter().map(|entry| stale(entry, None)).collect();
    bench.kv().remove(&left).await.unwrap();
    let last = stay[0].user.as_ref().unwrap().0.to_string();
    assert_eq!(fresh(bench, "lesson_student_algebra-1").await, hash([(&last, &sid(499))]));
    bench.kv().remove(&[]).await.unwrap();
}

async fn a_repair_makes_what_is_missing_and_changes_nothing_else(bench: &dyn Bench) {
    bench.kv().join(&participant("algebra-1", "alice", 1), None).await.unwrap();
    let entries = [
        // Another connection has the field, so the field stays.
        participant("algebra-1", "alice", 99),
        participant("algebra-1", "bob", 2),
        entry("algebra-1", "carol", Role::Teacher, 3),
        KeyEntry { user: None, ..participant("geometry-1", "nobody", 4) },
    ];
    bench.kv().repair(&entries).await.unwrap();
    let students = hash([("alice", &sid(1)), ("bob", &sid(2))]);
    assert_eq!(fresh(bench, "lesson_student_algebra-1").await, students);
    assert_eq!(fresh(bench, "alice").await.unwrap()["sid"], sid(1));
    assert_eq!(fresh(bench, "bob").await.unwrap()["role"], "participant");
    assert_eq!(fresh(bench, "carol").await, hash([("lesson_id", "algebra-1")]));
    assert_eq!(fresh(bench, "lesson_seat_geometry-1").await.unwrap().len(), 3);

    bench.flush().await;
    bench.kv().repair(&entries).await.unwrap();
    assert_eq!(fresh(bench, "lesson_student_algebra-1").await, hash([("alice", &sid(99)), ("bob", &sid(2))]));
    assert_eq!(fresh(bench, "lesson_teacher_algebra-1").await, hash([("carol", &sid(3))]));
    assert_eq!(fresh(bench, "lesson_seat_algebra-1").await.unwrap().len(), 3);

    bench.kv().remove(&[stale(&entries[1], None)]).await.unwrap();
    assert!(bench.kv().repair(&entries).await.unwrap(), "one field is lost");
    assert_eq!(fresh(bench, "lesson_student_algebra-1").await, hash([("alice", &sid(99)), ("bob", &sid(2))]));

    let many: Vec<KeyEntry> = (0..1000_u32).map(|n| participant("algebra-1", &format!("user-{n}"), n.into())).collect();
    bench.kv().repair(&many).await.unwrap();
    assert_eq!(fresh(bench, "lesson_student_algebra-1").await.unwrap().len(), 1002);
    bench.kv().repair(&[]).await.unwrap();
}

async fn a_hundred_at_once_make_the_seat_map_once(bench: &dyn Bench) {
    let joins = (0..100_u32).map(|n| {
        let kv = bench.kv();
        // Each join alone would make a map of another size.
        let joined = KeyEntry { seats: 30 + n, ..participant("algebra-1", &format!("user-{n}"), n.into()) };
        tokio::spawn(async move { kv.join(&joined, None).await })
    });
    for join in joins.collect::<Vec<_>>() {
        assert!(!join.await.unwrap().unwrap());
    }
    let seats = fresh(bench, "lesson_seat_algebra-1").await.unwrap();
    let all: Hash = (1..=129).map(|seat| (seat.to_string(), String::new())).collect();
    assert_eq!(seats, all);
    assert_eq!(fresh(bench, "lesson_student_algebra-1").await.unwrap().len(), 100);
}

async fn seats_that_are_added_later_are_in_the_map(bench: &dyn Bench) {
    let joined = |seats| KeyEntry { seats, ..participant("algebra-1", "alice", 1) };
    let numbers = async || fresh(bench, "lesson_seat_algebra-1").await.unwrap().into_keys().collect::<Vec<_>>();
    bench.kv().join(&joined(2), None).await.unwrap();
    assert_eq!(numbers().await, ["1", "2"]);
    bench.kv().join(&joined(4), None).await.unwrap();
    assert_eq!(numbers().await, ["1", "2", "3", "4"]);
    bench.kv().join(&joined(3), None).await.unwrap();
    assert_eq!(numbers().await, ["1", "2", "3", "4"], "fewer seats take no number away");
    let guest = KeyEntry { user: None, ..joined(5) };
    bench.kv().join(&guest, None).await.unwrap();
    assert_eq!(numbers().await, ["1", "2", "3", "4", "5"]);
    assert!(bench.kv().repair(&[joined(6)]).await.unwrap(), "a number is missing");
    assert_eq!(numbers().await, ["1", "2", "3", "4", "5", "6"]);
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
