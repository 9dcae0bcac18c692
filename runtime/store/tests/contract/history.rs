//! The history of a classroom, page by page, and its oldest rows.
use std::time::Duration;

use rollcall_schema::SessionId;
use rollcall_store::{HistoryPosition, Moment, Visit};

use crate::world::{Member, World, classroom};

crate::on_both!(pages_have_each_session_once_in_the_order_of_their_ends, a_sweep_deletes_what_is_old_and_nothing_else);

async fn past(world: &World, room: rollcall_schema::ClassroomId, page: usize) -> Vec<Visit> {
    let mut after = HistoryPosition { ended: Moment(0), session: SessionId(i64::MAX) };
    let mut all = Vec::new();
    loop {
        let visits = world.store.past(room, after, page).await.expect("read");
        let Some(last) = visits.last() else { return all };
        after = HistoryPosition { ended: last.end.as_ref().expect("ended").at, session: last.session };
        all.extend(visits);
    }
}

async fn pages_have_each_session_once_in_the_order_of_their_ends(world: World) {
    let room = classroom();
    let members: Vec<_> = (0..7).map(|number| Member::new(room, &format!("web.user-{number}"))).collect();
    let mut sessions = Vec::new();
    for member in &members {
        sessions.push(world.open(member).await.session);
    }
    world.open(&Member::new(classroom(), "web.user-0")).await;
    for number in [3, 0, 5, 1] {
        world.close(&members[number]).await;
    }
    let sorted = [0, 1, 3, 5].map(|number: usize| sessions[number]);
    for page in [1, 2, 3, 100] {
        let visits = past(&world, room, page).await;
        let place = |visit: &Visit| (visit.end.as_ref().map(|end| end.at), visit.session);
        assert!(visits.is_sorted_by_key(place), "{page}: {visits:?}");
        let mut found: Vec<_> = visits.iter().map(|visit| visit.session).collect();
        found.sort();
        assert_eq!(found, sorted, "{page}");
        for Visit { entered, end, .. } in &visits {
            let end = end.as_ref().expect("ended");
            assert!(*entered <= end.at && end.reason == "closed", "{entered:?} {end:?}");
        }
    }
    let present = world.store.present(room, sessions[2], 2).await.expect("read");
    assert_eq!(present.iter().map(|visit| visit.session).collect::<Vec<_>>(), [sessions[4], sessions[6]]);
    assert!(present.iter().all(|visit| visit.end.is_none() && visit.entered > Moment(1_700_000_000_000_000)));
    // Sessions that ended at the same time are distinguished by their ids.
    let (table, moment) = ("agent_session_history", past(&world, room, 9).await[0].end.clone().expect("ended").at);
    let same = match world.is_postgres() {
        true => format!("update {table} set lifetime = tstzrange('2020-01-01', '2020-01-02') returning id"),
        false => format!(
            "update {table} set started_at = '2020-01-01 00:00:00.000', ended_at = '2020-01-02 00:00:00.000' returning id"
        ),
    };
    assert!(moment.0 > 0 && !world.sql(&same).is_empty());
    for page in [1, 3, 100] {
        assert_eq!(past(&world, room, page).await.iter().map(|visit| visit.session).collect::<Vec<_>>(), sorted);
    }
}

async fn a_sweep_deletes_what_is_old_and_nothing_else(world: World) {
    let room = classroom();
    let members: Vec<_> = (0..9).map(|number| Member::new(room, &format!("web.user-{number}"))).collect();
    let mut sessions = Vec::new();
    for member in &members {
        sessions.push(world.open(member).await.session);
        world.close(member).await;
    }
    // All but the last two sessions began long ago; of those, the third ended a moment ago. The last two began a moment
    // ago.
    let (old, last) = (sessions[7], sessions[2]);
    for statement in match world.is_postgres() {
        true => [
            format!(
                "update agent_session_history set lifetime = tstzrange(now() - interval '9 h', now() - interval '5 h') where id < {old} and id <> {last} returning id"
            ),
            format!(
                "update agent_session_history set lifetime = tstzrange(now() - interval '9 h', now()) where id = {last} returning id"
            ),
        ],
        false => [
            format!(
                "update agent_session_history set started_at = strftime('%Y-%m-%d %H:%M:%f', 'now', '-9 hours'), ended_at = strftime('%Y-%m-%d %H:%M:%f', 'now', '-5 hours') where id < {old} and id <> {last} returning id"
            ),
            format!(
                "update agent_session_history set started_at = strftime('%Y-%m-%d %H:%M:%f', 'now', '-9 hours') where id = {last} returning id"
            ),
        ],
    } {
        assert!(!world.sql(&statement).is_empty());
    }
    let (mut after, mut deleted, mut batches) = (SessionId(0), 0, 0);
    loop {
        let sweep = world.store.sweep_history(Duration::from_secs(4 * 3600), after, 2).await.expect("swept");
        let sweep = sweep.expect("no other node does");
        (deleted, batches) = (deleted + sweep.deleted, batches + 1);
        match sweep.next {
            Some(next) => after = next,
            None => break,
        }
    }
    assert_eq!((deleted, batches), (6, 5), "the batch that begins with the last old one has a young one too");
    let left: Vec<_> = past(&world, room, 9).await.iter().map(|visit| visit.session).collect();
    assert_eq!(left.len(), 3);
    assert!([sessions[2], sessions[7], sessions[8]].iter().all(|session| left.contains(session)), "{left:?}");
}
