//! Reads which agents are in a classroom or a lesson, with one query for all callers that ask at the same time
//! (PROTOCOL 9).
//!
//! Invariant: a query begins after every caller that gets its answer has asked. So a caller that asks while a query
//! runs waits for the next query, even if it asks for the same page. The running query may have begun before this
//! connection's row was committed, or before the connection was in the room. Then its answer could lack an agent whose
//! entered event this connection does not get either.
//!
//! The number of waiting callers is bounded by the queue, and a query reads at most [`MAX_BATCH`] pages.
use std::{collections::HashMap, sync::Arc, time::Duration};

use rollcall_schema::{
    RosterAgent, RosterPage,
    roster::{ListedAgent, MAX_PAGE},
};
use tokio::{
    sync::{
        mpsc::{self, error::TrySendError},
        oneshot,
    },
    time::{Instant, timeout_at},
};

use rollcall_base::tasks::Tasks;
use rollcall_store::{RosterQuery, Store, StoreError};

/// The maximum number of pages in one query.
const MAX_BATCH: usize = 16;
/// How many queries run at once. A classroom's queries are always in the same lane.
const LANES: usize = 2;
/// How many callers may wait in a lane. They may all get the same answer, because an answer is shared.
const QUEUE: usize = 16_384;
/// How long a call may take.
const LIMIT: Duration = Duration::from_millis(1900);

/// The JSON form of an agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RosterForm {
    /// AGENT of PROTOCOL 9.
    Agent,
    /// AGENT with `id` and `sequence_id`, as over HTTP.
    Listed,
}

/// A request for a page.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RosterRequest {
    /// The agents to read.
    pub query: RosterQuery,
    /// The maximum number of agents of the page, from 1 to [`MAX_PAGE`].
    pub limit: usize,
    /// The form in which the agents are written.
    pub form: RosterForm,
}

/// A page, which callers share, or the error.
pub(crate) type Answer = Result<Arc<RosterPage>, StoreError>;

struct Waiting {
    request: RosterRequest,
    since: Instant,
    answer: oneshot::Sender<Answer>,
}

/// Reads rosters. It is cheap to clone.
#[derive(Clone)]
pub struct Rosters {
    lanes: Arc<[mpsc::Sender<Waiting>]>,
}

impl Rosters {
    /// Starts the lanes.
    #[must_use]
    pub fn start(tasks: &Tasks, store: &Arc<dyn Store>) -> Self {
        let store = Arc::clone(store);
        Self::with(tasks, move |queries: Vec<RosterQuery>, max| {
            let store = Arc::clone(&store);
            async move { store.agents(&queries, max).await }
        })
    }

    /// Creates rosters with this query. `query` returns a page for each of its queries, in their order.
    fn with<Q, F>(tasks: &Tasks, query: Q) -> Self
    where
        Q: Fn(Vec<RosterQuery>, usize) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = Result<Vec<Vec<RosterAgent>>, StoreError>> + Send + 'static,
    {
        let lanes = (0..LANES).map(|_| {
            let (sender, inbox) = mpsc::channel(QUEUE);
            tasks.spawn("rosters", run(query.clone(), inbox));
            sender
        });
        Self { lanes: lanes.collect() }
    }

    /// Reads a page. It includes every row that was committed before the call.
    ///
    /// # Errors
    /// Returns the store's error, or [`StoreError::Unavailable`] if too many callers wait or this call waits for too
    /// long.
    pub async fn read(&self, request: RosterRequest) -> Answer {
        let since = Instant::now();
        let (answer, answered) = oneshot::channel();
        let lane = request.query.classroom.0.as_u128() % self.lanes.len() as u128;
        let lane = &self.lanes[usize::try_from(lane).unwrap_or(0)];
        lane.try_send(Waiting { request, since, answer }).map_err(|error| match error {
            TrySendError::Full(_) => unavailable("too many wait for a roster"),
            TrySendError::Closed(_) => unavailable("the node is shutting down"),
        })?;
        match timeout_at(since + LIMIT, answered).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Err(unavailable("the roster was not read")),
            Err(_) => Err(unavailable("the database did not answer in time")),
        }
    }
}

fn unavailable(why: &str) -> StoreError {
    StoreError::Unavailable(why.to_owned())
}

/// Runs one query after the other, each for all callers that wait when it begins.
async fn run<Q, F>(query: Q, mut inbox: mpsc::Receiver<Waiting>)
where
    Q: Fn(Vec<RosterQuery>, usize) -> F,
    F: Future<Output = Result<Vec<Vec<RosterAgent>>, StoreError>>,
{
    let mut arrived = Vec::new();
    while inbox.recv_many(&mut arrived, QUEUE).await > 0 {
        let mut pages: HashMap<RosterRequest, Vec<oneshot::Sender<Answer>>> = HashMap::new();
        for Waiting { request, since, answer } in arrived.drain(..) {
            // A caller that has given up needs no query.
            if since.elapsed() < LIMIT && !answer.is_closed() {
                pages.entry(request).or_default().push(answer);
            }
        }
        let mut pages: Vec<_> = pages.into_iter().collect();
        while !pages.is_empty() {
            let batch: Vec<_> = pages.drain(..pages.len().min(MAX_BATCH)).collect();
            let queries = batch.iter().map(|(request, _)| request.query.clone()).collect();
            let limit = batch.iter().map(|(request, _)| request.limit).max().unwrap_or(0).min(MAX_PAGE);
            // If there is one agent more than a page has, another page follows.
            answer(batch, query(queries, limit + 1).await);
        }
    }
}

/// Encodes each page once, for all callers that asked for it.
fn answer(batch: Vec<(RosterRequest, Vec<oneshot::Sender<Answer>>)>, read: Result<Vec<Vec<RosterAgent>>, StoreError>) {
    let mut read = read.map(Vec::into_iter);
    for (RosterRequest { limit, form, .. }, waiting) in batch {
        let page = match &mut read {
            Ok(pages) => match (pages.next(), form) {
                (Some(agents), RosterForm::Agent) => Ok(RosterPage::encode(&agents, limit, |agent| agent)),
                (Some(agents), RosterForm::Listed) => Ok(RosterPage::encode(&agents, limit, ListedAgent::from)),
                (None, _) => Err(unavailable("not every query was answered")),
            },
            Err(error) => Err(error.clone()),
        };
        let page = page.map(Arc::new);
        for answer in waiting {
            // A caller that is gone needs no answer.
            answer.send(page.clone()).ok();
        }
    }
}

#[cfg(test)]
mod tests;
