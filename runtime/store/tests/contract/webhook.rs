//! The webhook's cursor. One node moves it, and a parked classroom has a cursor of its own.
use std::time::Duration;

use rollcall_schema::Offset;
use rollcall_store::{ParkedClassroom, WebhookCursor, WebhookState};

use crate::world::{Member, World, classroom, connect, is_fenced, register};

crate::on_both!(
    a_cursor_and_parked_classrooms_are_kept,
    a_lost_lease_moves_nothing,
    what_is_restarted_has_no_parked_classrooms
);

fn cursor(epoch: &str, offset: u64) -> WebhookCursor {
    WebhookCursor { epoch: epoch.to_owned(), offset: Offset(offset) }
}

async fn state(world: &World) -> WebhookState {
    world.store.claim_webhook(world.lease).await.expect("asked").expect("nobody else delivers")
}

async fn a_cursor_and_parked_classrooms_are_kept(world: World) {
    assert_eq!(state(&world).await, WebhookState::default());
    world.store.move_webhook(world.lease, &cursor("e", 7)).await.expect("moved");
    let parked = ParkedClassroom { classroom: classroom(), after: Offset(5), refused_for: Duration::from_secs(60) };
    world.store.park_classroom(world.lease, "e", &parked).await.expect("parked");
    world.store.park_classroom(world.lease, "e", &ParkedClassroom { after: Offset(6), ..parked }).await.expect("moved");
    let WebhookState { cursor: found, parked: all } = state(&world).await;
    assert_eq!((found, all.len(), all[0].classroom, all[0].after), (cursor("e", 7), 1, parked.classroom, Offset(6)));
    let refused_for = all[0].refused_for.as_secs();
    // SQLite stores times in milliseconds.
    assert!((59..120).contains(&refused_for), "{refused_for}");
    world.store.unpark_classroom(world.lease, parked.classroom).await.expect("unparked");
    assert!(state(&world).await.parked.is_empty());
}

async fn a_lost_lease_moves_nothing(world: World) {
    state(&world).await;
    world.store.move_webhook(world.lease, &cursor("e", 7)).await.expect("moved");
    world.sql("update node set epoch = epoch + 1 returning id");
    assert!(is_fenced(world.store.claim_webhook(world.lease).await));
    assert!(is_fenced(world.store.move_webhook(world.lease, &cursor("e", 9)).await));
    assert!(is_fenced(world.store.restart_webhook(world.lease, &cursor("f", 0)).await));
    let parked = ParkedClassroom { classroom: classroom(), after: Offset(5), refused_for: Duration::ZERO };
    assert!(is_fenced(world.store.park_classroom(world.lease, "e", &parked).await));
    assert!(is_fenced(world.store.unpark_classroom(world.lease, parked.classroom).await));
    assert_eq!(world.sql("select stream, after_offset from webhook"), "e|7");
    assert_eq!(world.sql("select count(*) from webhook_parked"), "0");
}

async fn what_is_restarted_has_no_parked_classrooms(world: World) {
    state(&world).await;
    world.store.move_webhook(world.lease, &cursor("e", 7)).await.expect("moved");
    let parked = ParkedClassroom { classroom: classroom(), after: Offset(5), refused_for: Duration::ZERO };
    world.store.park_classroom(world.lease, "e", &parked).await.expect("parked");
    world.store.restart_webhook(world.lease, &cursor("f", 0)).await.expect("restarted");
    // This write was under way and comes late, so its offset belongs to the epoch before.
    world.store.park_classroom(world.lease, "e", &parked).await.expect("parked");
    assert_eq!(state(&world).await, WebhookState { cursor: cursor("f", 0), parked: Vec::new() });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_node_delivers_only_once_the_lease_is_over() {
    let world = World::postgres().await;
    let other = connect(world.url());
    let lease = register(&*other, Duration::from_secs(30)).await;
    state(&world).await;
    world.store.move_webhook(world.lease, &cursor("e", 7)).await.expect("moved");
    assert!(other.claim_webhook(lease).await.expect("asked").is_none());
    assert!(is_fenced(other.move_webhook(lease, &cursor("e", 8)).await));
    world.sql(&format!(
        "update node set lease_until = now() - interval '1 s' where id = {} returning id",
        world.lease.node
    ));
    let taken = other.claim_webhook(lease).await.expect("asked").expect("free");
    assert_eq!(taken.cursor, cursor("e", 7));
    // The node has its lease again, but it no longer delivers.
    world.store.renew_lease(world.lease, Duration::from_secs(30)).await.expect("renewed");
    assert!(is_fenced(world.store.move_webhook(world.lease, &cursor("e", 9)).await));
    assert!(world.store.claim_webhook(world.lease).await.expect("asked").is_none());
    other.release_lease(lease).await.expect("released");
    assert!(world.store.claim_webhook(world.lease).await.expect("asked").is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn published_events_are_kept_in_sqlite_until_they_are_delivered() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = rollcall_store::sqlite::SqliteStore::open(folder.path().join("x.db")).expect("opened");
    let world = World::on_sqlite(store.keeping_published(true), folder).await;
    let (room, elsewhere) = (classroom(), classroom());
    let members = [Member::new(room, "web.alice"), Member::new(elsewhere, "web.bob"), Member::new(room, "web.carol")];
    for member in &members {
        world.open(member).await;
    }
    world.close(&members[0]).await;
    assert!(world.store.kept_events(None, Offset(0), 10).await.expect("read").is_empty(), "not published yet");
    let bodies: Vec<_> = world.events().await.iter().map(|row| row.event().body()).collect();
    let kept = world.store.kept_events(None, Offset(0), 10).await.expect("read");
    assert_eq!(kept.iter().map(|event| event.body.to_vec()).collect::<Vec<_>>(), bodies);
    assert!(kept.is_sorted_by_key(|event| event.offset));
    assert_eq!(kept.iter().map(|event| event.reason.is_some()).collect::<Vec<_>>(), [false, false, false, true]);
    let of_room = world.store.kept_events(Some(room), kept[0].offset, 10).await.expect("read");
    assert_eq!(of_room.iter().map(|event| event.offset).collect::<Vec<_>>(), [kept[2].offset, kept[3].offset]);
    let hour = Duration::from_secs(3600);
    assert_eq!(world.store.forget_kept(kept[1].offset, hour, 10).await.expect("forgotten"), 0);
    assert_eq!(world.store.kept_events(None, Offset(0), 10).await.expect("read").len(), 2);
    world.sql("update webhook_event set created_at = '2020-01-01 00:00:00.000' returning id");
    assert_eq!(world.store.forget_kept(kept[1].offset, hour, 1).await.expect("forgotten"), 1);
    assert_eq!(world.store.forget_kept(kept[1].offset, hour, 10).await.expect("forgotten"), 1);
}
