use rollcall_schema::{AgentId, ClassroomId, Role, SessionId, StateVersion};
use tokio::sync::{Semaphore, mpsc::UnboundedReceiver};
use uuid::Uuid;

use super::*;

/// Rosters whose queries the test sees, and answers one by one.
struct Bench {
    rosters: Rosters,
    queries: UnboundedReceiver<usize>,
    answers: Arc<Semaphore>,
}

fn agent(session: i64) -> RosterAgent {
    RosterAgent {
        session_id: SessionId(session),
        agent_id: AgentId::parse("web.alice.example.org").expect("an agent"),
        role: Role::Participant,
        lesson_id: None,
        seat: None,
        state_n: StateVersion(0),
        info: None,
        state: None,
    }
}

impl Bench {
    /// Creates queries of which the n-th, counted from 1, finds one agent in each classroom, in session n.
    fn new() -> Self {
        let (begun, queries) = mpsc::unbounded_channel();
        let answers = Arc::new(Semaphore::new(0));
        let count = Arc::new(std::sync::atomic::AtomicI64::new(0));
        let permits = Arc::clone(&answers);
        let rosters = Rosters::with(&Tasks::default(), move |queries: Vec<RosterQuery>, _| {
            let number = 1 + count.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            begun.send(queries.len()).expect("the test listens");
            let permits = Arc::clone(&permits);
            async move {
                permits.acquire().await.expect("open").forget();
                Ok(queries.iter().map(|_| vec![agent(number)]).collect())
            }
        });
        Self { rosters, queries, answers }
    }

    fn ask(&self, classroom: u128) -> tokio::task::JoinHandle<Answer> {
        let query =
            RosterQuery { classroom: ClassroomId(Uuid::from_u128(classroom)), lesson: None, after: SessionId(0) };
        let rosters = self.rosters.clone();
        tokio::spawn(async move { rosters.read(RosterRequest { query, limit: 10, form: RosterForm::Agent }).await })
    }

    async fn wait_for(&self, waiting: usize) {
        while self.rosters.lanes[0].max_capacity() - self.rosters.lanes[0].capacity() < waiting {
            tokio::task::yield_now().await;
        }
    }
}

async fn page(asked: tokio::task::JoinHandle<Answer>) -> Arc<RosterPage> {
    asked.await.expect("no panic").expect("a page")
}

#[tokio::test]
async fn whoever_asks_while_a_query_runs_shares_the_next_one() {
    let mut bench = Bench::new();
    let first = bench.ask(0);
    assert_eq!(bench.queries.recv().await, Some(1));
    let later: Vec<_> = (0..50).map(|_| bench.ask(0)).collect();
    bench.wait_for(50).await;
    bench.answers.add_permits(1);
    assert!(page(first).await.agents.get().contains("\"session_id\":1,"));
    // There was one query for all of them, and one encoding.
    assert_eq!(bench.queries.recv().await, Some(1));
    bench.answers.add_permits(1);
    let mut pages = Vec::new();
    for asked in later {
        pages.push(page(asked).await);
    }
    assert!(pages[0].agents.get().contains("\"session_id\":2,"), "{:?}", pages[0]);
    assert!(pages.iter().all(|other| Arc::ptr_eq(other, &pages[0])));
    assert!(bench.queries.is_empty());
}

#[tokio::test]
async fn several_classrooms_are_read_in_one_query() {
    let mut bench = Bench::new();
    let first = bench.ask(0);
    assert_eq!(bench.queries.recv().await, Some(1));
    let others: Vec<_> = (0..2 * MAX_BATCH as u128).map(|n| bench.ask(2 * n)).collect();
    bench.wait_for(2 * MAX_BATCH).await;
    bench.answers.add_permits(3);
    page(first).await;
    assert_eq!([bench.queries.recv().await, bench.queries.recv().await], [Some(MAX_BATCH); 2]);
    for asked in others {
        page(asked).await;
    }
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_beyond_the_limit() {
    let mut bench = Bench::new();
    let first = bench.ask(0);
    assert_eq!(bench.queries.recv().await, Some(1));
    let second = bench.ask(0);
    for asked in [first, second] {
        assert!(matches!(asked.await.expect("no panic"), Err(StoreError::Unavailable(_))));
    }
    // No caller waits for the second query any more.
    bench.answers.add_permits(1);
    let third = bench.ask(0);
    assert_eq!(bench.queries.recv().await, Some(1));
    bench.answers.add_permits(1);
    assert!(page(third).await.agents.get().contains("\"session_id\":2,"));
}
