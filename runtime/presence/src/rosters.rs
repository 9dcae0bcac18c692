//! Who is in a classroom or a lesson, read for all who ask at the same time by one query (PROTOCOL 9).
//!
//! Invariant: a query begins after everybody who gets its answer has asked. So whoever asks while a query runs waits
//! for the next one, even where it asks for the same page: the one that runs may have begun before this connection's
//! row was committed, or before it was in the room, and would leave out an agent whose entered event this connection
//! does not get either.
//!
//! Bounded: as many may wait as the queue has room for; a query reads at most [`MAX_BATCH`] pages.
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

/// Pages in one query.
const MAX_BATCH: usize = 16;
/// Queries that run at once; a classroom's are always in the same lane.
const LANES: usize = 2;
/// How many callers may wait in a lane. An answer is shared, so this many may get it at once.
const QUEUE: usize = 16_384;
/// How long a call takes at most.
const LIMIT: Duration = Duration::from_millis(1900);

/// How an agent is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RosterForm {
    /// AGENT of PROTOCOL 9.
    Agent,
    /// The same with `id` and `sequence_id`, as over HTTP.
    Listed,
}

/// A page that is asked for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RosterRequest {
    /// The agents that are asked for.
    pub query: RosterQuery,
    /// The most agents of the page, from 1 to [`MAX_PAGE`].
    pub limit: usize,
    /// How they are written.
    pub form: RosterForm,
}

/// A page, which is shared, or why there is none.
pub(crate) type Answer = Result<Arc<RosterPage>, StoreError>;

struct Waiting {
    request: RosterRequest,
    since: Instant,
    answer: oneshot::Sender<Answer>,
}

/// Reads rosters. Cheap to clone.
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

    /// `query` answers in the order of its queries.
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

    /// Reads a page. What was committed before the call is in it.
    ///
    /// # Errors
    /// What the store says; [`StoreError::Unavailable`] where too many wait, or for too long.
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

/// One query after the other, each for all who wait when it begins.
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
            // One more than a page has tells whether another follows.
            answer(batch, query(queries, limit + 1).await);
        }
    }
}

/// Encodes each page once, for all who asked for it.
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
            // A caller that went away needs no answer.
            answer.send(page.clone()).ok();
        }
    }
}

#[cfg(test)]
mod tests;
