//! Sessions that wait for their clients: how many, how long, and until when.
use rollcall_schema::{ClassroomId, ConnectRequest, SessionError};
use uuid::Uuid;

use super::*;
use crate::handler::{connect_context::ConnectContext, connected::Connected, error::ConnectError};
use rollcall_websocket::SocketId;

struct Ends(mpsc::UnboundedSender<(Sid, LeftReason)>);

async fn nobody(_: &(), _: ConnectContext, _: ConnectRequest) -> Result<Connected, ConnectError> {
    Err(ConnectError::Session(SessionError::Unauthenticated))
}

async fn end(ends: &Ends, session: Session, reason: LeftReason) {
    ends.0.send((session.sid, reason)).unwrap();
}

fn departures(max: usize) -> (DisconnectQueue, mpsc::UnboundedReceiver<(Sid, LeftReason)>) {
    let (departures, arrivals) = DisconnectQueue::new(Grace { time: Duration::from_secs(600), max });
    let (ends, ended) = mpsc::unbounded_channel();
    tokio::spawn(departures.clone().run(arrivals, Table::new(((), nobody), (Ends(ends), end))));
    (departures, ended)
}

fn session(sid: u128) -> Box<Session> {
    let greeting = ConnectContext { socket: SocketId::from_bits(0), sid: Sid(sid), client: None, asked: None };
    Box::new(Session::guest(greeting, ClassroomId(Uuid::nil())))
}

#[tokio::test(start_paused = true)]
async fn of_more_than_may_be_kept_the_one_that_has_waited_longest_leaves() {
    let (departures, mut ended) = departures(2);
    let began = Instant::now();
    for sid in 1..=4 {
        departures.leave(session(sid), LeftReason::Lost);
    }
    assert_eq!(ended.recv().await, Some((Sid(1), LeftReason::Lost)));
    assert_eq!(ended.recv().await, Some((Sid(2), LeftReason::Lost)));
    assert_eq!(began.elapsed(), Duration::ZERO);
    assert_eq!(ended.recv().await, Some((Sid(3), LeftReason::Lost)));
    assert_eq!(began.elapsed().as_secs(), 600);
}

#[tokio::test(start_paused = true)]
async fn one_that_was_taken_over_is_not_waited_for() {
    let (departures, mut ended) = departures(100);
    let began = Instant::now();
    departures.drain(began + Duration::from_secs(60));
    for (sid, reason) in [(1, LeftReason::Lost), (2, LeftReason::Drained), (3, LeftReason::Drained)] {
        departures.leave(session(sid), reason);
    }
    for sid in [Sid(3), Sid(1), Sid(9)] {
        departures.taken_over(sid);
    }
    assert_eq!(ended.recv().await, Some((Sid(3), LeftReason::Drained)));
    assert_eq!(ended.recv().await, Some((Sid(1), LeftReason::Lost)));
    assert_eq!(began.elapsed(), Duration::ZERO);
    assert_eq!(ended.recv().await, Some((Sid(2), LeftReason::Drained)));
    assert_eq!(began.elapsed(), RETURN_WITHIN);
    departures.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_drain_keeps_nobody_longer_than_it_says() {
    let (departures, mut ended) = departures(100);
    let began = Instant::now();
    departures.leave(session(1), LeftReason::Lost);
    tokio::task::yield_now().await;
    departures.drain(began + Duration::from_secs(4));
    departures.leave(session(2), LeftReason::Drained);
    departures.leave(session(3), LeftReason::Closed);
    let order = [ended.recv().await, ended.recv().await, ended.recv().await].map(|end| end.unwrap().0.0);
    assert_eq!(order[0], 3);
    assert_eq!(began.elapsed().as_secs(), 4);
    departures.finish().await;
}
