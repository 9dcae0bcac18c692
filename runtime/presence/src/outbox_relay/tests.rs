//! A relay between an outbox and a bus that the test controls.
use std::{collections::HashSet, sync::atomic::AtomicUsize};

use async_trait::async_trait;
use parking_lot::Mutex;
use rollcall_schema::{AgentId, ClassroomId, Epoch, NodeId, Nonce, Offset, RoomId, SessionId};

use super::*;
use rollcall_bus::{Position, Replay};
use rollcall_store::{Change, sqlite::SqliteStore};

fn row(id: i64, name: &str, classroom: u128) -> OutboxRow {
    OutboxRow {
        id,
        classroom: ClassroomId(Uuid::from_u128(classroom)),
        agent: AgentId::parse(name).expect("an agent"),
        session: SessionId(id),
        change: Change::Entered,
        info: None,
        nonce: Nonce(id),
        trace: None,
        waited: Duration::ZERO,
    }
}

/// A round: how long its rows have waited (`None` if there is no row), and whether the bus is there.
type Round = (Option<Duration>, bool);

/// A step of a relay, and its number of rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Published(usize),
    Deleted(usize),
}

/// The outbox and the bus of a relay. Both fail after the last round.
struct Ends {
    /// The rounds, the last one first.
    rounds: Mutex<Vec<Round>>,
    /// The rows of each round.
    rows: Vec<OutboxRow>,
    backlogged: watch::Receiver<bool>,
    /// Whether the relay was backlogged each time it asked for a round.
    heard: Mutex<Vec<bool>>,
    there: watch::Sender<bool>,
    /// Whether the stream has all rows already.
    in_stream: bool,
    steps: Mutex<Vec<Step>>,
}

/// An outbox that returns the rounds.
struct Script(Arc<Ends>);

#[async_trait]
impl Outbox for Script {
    async fn claim(&mut self) -> Result<usize, StoreError> {
        Ok(1)
    }

    async fn read(&mut self, _: usize) -> Result<Vec<OutboxRow>, StoreError> {
        self.0.heard.lock().push(*self.0.backlogged.borrow());
        let round = self.0.rounds.lock().pop();
        let (waited, there) = round.ok_or_else(|| StoreError::Unavailable("over".to_owned()))?;
        self.0.there.send_replace(there);
        let Some(waited) = waited else { return Ok(Vec::new()) };
        Ok(self.0.rows.iter().map(|row| OutboxRow { waited, ..row.clone() }).collect())
    }

    async fn quarantine(&mut self, _: &[i64], _: &str) -> Result<(), StoreError> {
        Ok(())
    }

    async fn release_quarantined(&mut self) -> Result<u64, StoreError> {
        Ok(0)
    }

    async fn delete(&mut self, ids: &[i64]) -> Result<(), StoreError> {
        self.0.steps.lock().push(Step::Deleted(ids.len()));
        Ok(())
    }

    async fn wait(&mut self, _: Duration) -> Result<(), StoreError> {
        Ok(())
    }
}

#[async_trait]
impl Bus for Ends {
    fn name(&self) -> &'static str {
        "scripted"
    }

    async fn ping(&self) -> Result<(), BusError> {
        Ok(())
    }

    async fn stored(&self, ids: &HashSet<String>, _: Duration) -> Result<HashSet<String>, BusError> {
        Ok(if self.in_stream { ids.clone() } else { HashSet::new() })
    }

    async fn publish(&self, batch: Vec<Publication>) -> Vec<Result<Offset, PublishError>> {
        let away = || PublishError::Away(BusError("away".to_owned()));
        self.steps.lock().push(Step::Published(batch.len()));
        let answer = if *self.there.borrow() { Ok(Offset(1)) } else { Err(away()) };
        vec![answer; batch.len()]
    }

    async fn subscribe(&self, _: &RoomId) -> Result<Offset, BusError> {
        Ok(Offset(0))
    }

    fn unsubscribe(&self, _: &RoomId) {}

    fn followers(&self) -> &AtomicUsize {
        unreachable!("a relay follows no feed")
    }

    fn position(&self) -> Position {
        Position { epoch: String::new(), offset: Offset(0) }
    }

    async fn end(&self) -> Position {
        self.position()
    }

    async fn oldest(&self) -> Result<Position, BusError> {
        Ok(self.position())
    }

    async fn replay(&self, _: &[RoomId], _: &Position) -> Result<Replay, BusError> {
        Ok(Replay::Lost)
    }
}

/// Runs a relay through these rounds with one row.
async fn relay(rounds: &[Round], in_stream: bool) -> Arc<Ends> {
    relay_rows(vec![row(1, "web.ann.example.org", 1)], rounds, in_stream, Memory::default()).await
}

async fn relay_rows(rows: Vec<OutboxRow>, rounds: &[Round], in_stream: bool, mut memory: Memory) -> Arc<Ends> {
    let folder = tempfile::tempdir().expect("a folder");
    let backlogged = watch::Sender::new(false);
    let ends = Arc::new(Ends {
        rounds: Mutex::new(rounds.iter().rev().copied().collect()),
        rows,
        backlogged: backlogged.subscribe(),
        heard: Mutex::default(),
        there: watch::Sender::new(true),
        in_stream,
        steps: Mutex::default(),
    });
    let relay = OutboxRelay {
        store: Arc::new(SqliteStore::open(folder.path().join("rollcall.db")).expect("opened")),
        bus: ends.clone(),
        installation: Uuid::nil(),
        lease: watch::channel(Lease { node: NodeId(1), epoch: Epoch(1) }).1,
        backlogged,
    };
    relay.drain(Box::new(Script(ends.clone())), &mut memory).await.expect_err("over");
    ends
}

#[tokio::test(start_paused = true)]
async fn it_is_backlogged_while_it_publishes_what_waited_for_the_bus() {
    let rounds: [Round; 5] = [
        (Some(Duration::ZERO), true),
        (Some(BACKLOGGED_AFTER), true),
        (None, true),
        (Some(BACKLOGGED_AFTER), true),
        (Some(BACKLOGGED_AFTER), false),
    ];
    let ends = relay(&rounds, false).await;
    let heard = ends.heard.lock().clone();
    assert_eq!(heard, [false, false, true, false, true, false]);
}

#[tokio::test(start_paused = true)]
async fn what_the_stream_may_have_forgotten_is_looked_for_before_it_is_sent_again() {
    // The rows are read, read for the search, and read again with its result.
    let rounds: [Round; 3] = [(Some(HALF_WINDOW), true); 3];
    let once = [Step::Published(1), Step::Deleted(1)];
    assert_eq!(*relay(&rounds, true).await.steps.lock(), [Step::Deleted(1)]);
    assert_eq!(*relay(&rounds, false).await.steps.lock(), once);
    assert_eq!(*relay(&[(Some(Duration::ZERO), true)], true).await.steps.lock(), once, "it is not old");
}

/// After a deletion, no row that was read before may be published.
#[tokio::test(start_paused = true)]
async fn what_is_stored_already_is_deleted_with_what_is_published_beside_it() {
    let rows = vec![row(1, "web.ann.example.org", 1), row(2, "web.bob.example.org", 1)];
    let mut memory = Memory::default();
    memory.looked(0, [(key(&rows[0]), true)].into_iter());
    let ends = relay_rows(rows, &[(Some(Duration::ZERO), true)], false, memory).await;
    assert_eq!(*ends.steps.lock(), [Step::Published(1), Step::Deleted(2)]);
}

#[test]
fn a_row_is_set_aside_where_two_batches_in_a_row_refuse_it() {
    let refused = |ids: &[i64]| ids.iter().map(|id| ((*id, Nonce(*id)), "too large".to_owned())).collect::<Vec<_>>();
    let mut memory = Memory::default();
    let mut aside = |ids: &[i64]| {
        let twice = memory.refused_twice(refused(ids));
        twice.into_iter().map(|((id, _), _)| id).collect::<Vec<_>>()
    };
    assert_eq!(aside(&[1, 2]), [0; 0], "the stream may have begun to refuse everything");
    assert_eq!(aside(&[1, 3]), [1]);
    assert_eq!(aside(&[]), [0; 0]);
    assert_eq!(aside(&[3]), [0; 0], "it was not refused in the batch before");
}
