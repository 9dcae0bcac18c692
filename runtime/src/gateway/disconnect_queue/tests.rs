//! Sessions in grace: how many there may be, how long they wait, and when a drain ends them.
use rollcall_schema::{ClassroomId, ConnectRequest};
use uuid::Uuid;

use super::*;
use crate::handler::{connect_context::ConnectContext, connected::Connected, error::ConnectError};
use rollcall_presence::Membership;

struct Ends(mpsc::UnboundedSender<(Sid, LeftReason)>);

async fn refuse(_: &(), _: ConnectContext, _: ConnectRequest) -> Result<Connected, ConnectError> {
    Err(ConnectError::Session(SessionError::Unauthenticated))
}

async fn end(ends: &Ends, session: Session, reason: LeftReason) {
    ends.0.send((session.sid(), reason)).unwrap();
}

fn disconnect_queue(max: usize) -> (DisconnectQueue, mpsc::UnboundedReceiver<(Sid, LeftReason)>) {
    let (queue, receiver) = DisconnectQueue::new(Grace { time: Duration::from_secs(600), max });
    let (ends, ended) = mpsc::unbounded_channel();
    let handlers = Handlers::new(("connect_request", (), refuse), (Ends(ends), end));
    tokio::spawn(queue.clone().run(receiver, handlers, |_: &mut Session| {}));
    (queue, ended)
}

fn session(sid: u128) -> Box<Session> {
    Box::new(Session::guest(Membership::guest(Sid(sid), ClassroomId(Uuid::nil()))))
}

#[tokio::test(start_paused = true)]
async fn when_grace_is_full_the_session_that_has_waited_longest_ends() {
    let (queue, mut ended) = disconnect_queue(2);
    let began = Instant::now();
    for sid in 1..=4 {
        queue.leave(session(sid), LeftReason::Lost);
    }
    assert_eq!(ended.recv().await, Some((Sid(1), LeftReason::Lost)));
    assert_eq!(ended.recv().await, Some((Sid(2), LeftReason::Lost)));
    assert_eq!(began.elapsed(), Duration::ZERO);
    assert_eq!(ended.recv().await, Some((Sid(3), LeftReason::Lost)));
    assert_eq!(began.elapsed().as_secs(), 600);
}

#[tokio::test(start_paused = true)]
async fn a_session_that_was_taken_over_ends_at_once() {
    let (queue, mut ended) = disconnect_queue(100);
    let began = Instant::now();
    queue.drain(began + Duration::from_secs(60));
    for (sid, reason) in [(1, LeftReason::Lost), (2, LeftReason::Drained), (3, LeftReason::Drained)] {
        queue.leave(session(sid), reason);
    }
    for sid in [Sid(3), Sid(1), Sid(9)] {
        queue.taken_over(sid, SessionError::Replaced);
    }
    let replaced = LeftReason::Kicked(Some(KickCause::Told(SessionError::Replaced)));
    assert_eq!(ended.recv().await, Some((Sid(3), replaced)));
    assert_eq!(ended.recv().await, Some((Sid(1), replaced)));
    assert_eq!(began.elapsed(), Duration::ZERO);
    assert_eq!(ended.recv().await, Some((Sid(2), LeftReason::Drained)));
    assert_eq!(began.elapsed(), RETURN_WITHIN);
    queue.finish().await;
}

#[tokio::test(start_paused = true)]
async fn no_session_waits_longer_than_the_drain_allows() {
    let (queue, mut ended) = disconnect_queue(100);
    let began = Instant::now();
    queue.leave(session(1), LeftReason::Lost);
    tokio::task::yield_now().await;
    queue.drain(began + Duration::from_secs(4));
    queue.leave(session(2), LeftReason::Drained);
    queue.leave(session(3), LeftReason::Closed);
    let order = [ended.recv().await, ended.recv().await, ended.recv().await].map(|end| end.unwrap().0.0);
    assert_eq!(order[0], 3);
    assert_eq!(began.elapsed().as_secs(), 4);
    queue.finish().await;
}
