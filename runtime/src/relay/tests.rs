//! Turns, and a relay between an outbox and a bus that do what the test says.
use std::sync::{Mutex, PoisonError};

use async_trait::async_trait;
use rollcall_schema::{AgentId, ClassroomId, Nonce, Offset, RoomId, SessionId};

use super::*;
use crate::{
    bus::{Position, Replay},
    store::{Change, sqlite::SqliteStore},
};

fn row(id: i64, name: &str, classroom: u128) -> OutboxRow {
    OutboxRow {
        id,
        classroom: ClassroomId(Uuid::from_u128(classroom)),
        agent: AgentId::parse(name).expect("an agent"),
        session: SessionId(id),
        change: Change::Entered,
        nonce: Nonce(id),
        waited: Duration::ZERO,
    }
}

#[test]
fn no_two_rows_of_an_agent_are_in_one_turn() {
    let [ann, bob] = ["web.ann.example.org", "web.bob.example.org"];
    let rows = [row(1, ann, 1), row(2, ann, 1), row(3, bob, 1), row(4, ann, 2), row(5, ann, 1)];
    let turns: Vec<Vec<i64>> = turns(&rows).iter().map(|turn| turn.iter().map(|row| row.id).collect()).collect();
    assert_eq!(turns, [vec![1, 3, 4], vec![2], vec![5]]);
}

/// How a round goes: how long its only row has waited, none where there is no row, and whether the bus is there.
type Round = (Option<Duration>, bool);

/// Both ends of a relay, which fail after the last round.
struct Ends {
    /// The last one first.
    rounds: Mutex<Vec<Round>>,
    late: watch::Receiver<bool>,
    /// Whether the relay was late when it asked for a round.
    heard: Mutex<Vec<bool>>,
    there: watch::Sender<bool>,
}

#[async_trait]
impl Outbox for Arc<Ends> {
    async fn claim(&mut self) -> Result<usize, StoreError> {
        Ok(1)
    }

    async fn read(&mut self, _: usize) -> Result<Vec<OutboxRow>, StoreError> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner).push(*self.late.borrow());
        let round = self.rounds.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let (waited, there) = round.ok_or_else(|| StoreError::Unavailable("over".to_owned()))?;
        self.there.send_replace(there);
        Ok(waited.map(|waited| OutboxRow { waited, ..row(1, "web.ann.example.org", 1) }).into_iter().collect())
    }

    async fn delete(&mut self, _: &[i64]) -> Result<(), StoreError> {
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

    async fn publish(&self, batch: Vec<Publication>) -> Vec<Result<Offset, BusError>> {
        let answer = if *self.there.borrow() { Ok(Offset(1)) } else { Err(BusError("away".to_owned())) };
        vec![answer; batch.len()]
    }

    async fn subscribe(&self, _: &RoomId) -> Result<(), BusError> {
        Ok(())
    }

    fn unsubscribe(&self, _: &RoomId) {}

    fn position(&self) -> Position {
        Position { epoch: String::new(), offset: Offset(0) }
    }

    async fn replay(&self, _: &[RoomId], _: &Position, _: Offset) -> Result<Replay, BusError> {
        Ok(Replay::Lost)
    }
}

#[tokio::test(start_paused = true)]
async fn it_is_late_while_it_publishes_what_waited_for_the_bus() {
    let folder = tempfile::tempdir().expect("a folder");
    let late = watch::Sender::new(false);
    let rounds: [Round; 5] =
        [(Some(Duration::ZERO), true), (Some(LATE), true), (None, true), (Some(LATE), true), (Some(LATE), false)];
    let ends = Arc::new(Ends {
        rounds: Mutex::new(rounds.into_iter().rev().collect()),
        late: late.subscribe(),
        heard: Mutex::default(),
        there: watch::Sender::new(true),
    });
    let relay = Relay {
        store: Arc::new(SqliteStore::open(folder.path().join("rollcall.db")).expect("opened")),
        bus: ends.clone(),
        installation: Uuid::nil(),
        late,
    };
    relay.drain(Box::new(ends.clone())).await.expect_err("over");
    let heard = ends.heard.lock().unwrap_or_else(PoisonError::into_inner).clone();
    assert_eq!(heard, [false, false, true, false, true, false]);
}
