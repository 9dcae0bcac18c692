//! An agent makes its visits one after the other. Each visit has a connection, which a task of its own reads until the
//! connection ends.
//!
//! Invariant: once [`Agent::live`] has returned, the journal has everything that the agent's clients got, and their
//! connections have ended.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, sleep_until};

use rollcall_loadtest::token;

use super::connection::{Errand, Orders, Outcome};
use super::journal::{Connection, Journal, SharedProgress, Told, locked};
use super::plan::{AgentPlan, Ending, Visit};

/// How many nodes a refused client tries.
const TRIES: usize = 3;
const RETRY_AFTER: Duration = Duration::from_millis(80);

/// What all agents of a seed share.
pub(super) struct Stage {
    pub(super) seed: u64,
    pub(super) nodes: Vec<SocketAddr>,
    /// The address at which each node lists agents.
    pub(super) admins: Vec<SocketAddr>,
    pub(super) classrooms: Vec<String>,
    /// The lessons of each classroom.
    pub(super) lessons: Vec<Vec<String>>,
    pub(super) journal: Journal,
    /// True once the faults are over. Then all agents leave.
    pub(super) over: watch::Receiver<bool>,
    /// True shortly before `over`. From then on no agent sets its state.
    pub(super) settled: watch::Receiver<bool>,
}

/// One agent.
pub(super) struct Agent {
    plan: AgentPlan,
    stage: Arc<Stage>,
    token: String,
    /// The progress of the latest connection with offsets.
    latest: Arc<Mutex<Option<SharedProgress>>>,
}

struct Open {
    orders: watch::Sender<Orders>,
    task: JoinHandle<()>,
}

impl Agent {
    pub(super) fn new(plan: AgentPlan, stage: Arc<Stage>) -> Self {
        let user = format!("s{}-a{}", stage.seed, plan.user);
        let token = if plan.teacher { token::teacher(&user) } else { token::participant(&user) };
        Self { plan, stage, token, latest: Arc::default() }
    }

    /// Makes all visits. The last one lasts until all agents leave.
    pub(super) async fn live(self) {
        let mut over = self.stage.over.clone();
        let mut opened: Vec<Open> = Vec::new();
        let visits = self.plan.visits.clone();
        let course = async {
            for visit in visits {
                sleep(visit.pause).await;
                let until = Instant::now() + visit.stays;
                let Some(open) = self.open(visit).await else { continue };
                sleep_until(until).await;
                open.orders.send_replace(match visit.ending {
                    Ending::Close => Orders::Close,
                    Ending::Break => Orders::Break,
                    Ending::Vanish => Orders::Vanish,
                    Ending::TakeOver => Orders::Stay,
                });
                opened.push(open);
            }
        };
        tokio::select! {
            () = course => {}
            _ = over.wait_for(|over| *over) => {}
        }
        // Dropping its sender breaks a connection. So a connection that is to stay or to vanish keeps its sender until
        // the end.
        over.wait_for(|over| *over).await.ok();
        let last = opened.len();
        for (place, open) in opened.iter().enumerate() {
            let politely = place + 1 == last && self.plan.number.is_multiple_of(2);
            open.orders.send_if_modified(|orders| {
                let going = matches!(orders, Orders::Close | Orders::Break);
                if !going {
                    *orders = if politely && *orders == Orders::Stay { Orders::Close } else { Orders::Break };
                }
                !going
            });
        }
        for open in opened {
            // If a task panicked, its connection is missing in the journal, and the ledger reports that.
            open.task.await.ok();
        }
    }

    /// Connects to the visit's node, or to the following nodes if that node refuses.
    async fn open(&self, visit: Visit) -> Option<Open> {
        for attempt in 0..TRIES {
            let node = (visit.node + attempt) % self.stage.nodes.len();
            let (orders, told) = watch::channel(Orders::Stay);
            let (outcome, mut entered) = watch::channel(Outcome::Waiting);
            let errand = self.errand(visit, node);
            let stage = Arc::clone(&self.stage);
            let task = tokio::spawn(async move {
                let Stage { journal, .. } = &*stage;
                journal.add(errand.run(journal, told, outcome).await);
            });
            // The wait fails if the task ended without an outcome.
            entered.wait_for(|outcome| *outcome != Outcome::Waiting).await.ok();
            if *entered.borrow() == Outcome::Entered {
                return Some(Open { orders, task });
            }
            task.await.ok();
            sleep(RETRY_AFTER).await;
        }
        None
    }

    fn errand(&self, visit: Visit, node: usize) -> Errand {
        let known = locked(&self.latest).as_ref().map(|progress| locked(progress).clone()).filter(|_| visit.resumes);
        let classroom = self.stage.classrooms[self.plan.classroom].clone();
        let user = format!("s{}-a{}", self.stage.seed, self.plan.user);
        let label = if self.plan.user == self.plan.number { "web" } else { "ios" };
        let mut lessons = self.stage.lessons[self.plan.classroom].iter().cloned();
        let course = usize::from(visit.joins) + usize::from(visit.joins && visit.moves);
        let asked = known.as_ref().and_then(|known| known.position.clone());
        Errand {
            address: self.stage.nodes[node],
            admin: self.stage.admins[node],
            token: self.token.clone(),
            label,
            resumes: visit.resumes,
            joins: lessons.by_ref().take(course).collect(),
            latest: Arc::clone(&self.latest),
            progress: SharedProgress::default(),
            over: self.stage.over.clone(),
            settled: self.stage.settled.clone(),
            before_join: Told::Unknown,
            known: known.unwrap_or_default(),
            log: Connection {
                agent: format!("{label}.{user}.{}", token::AUDIENCE),
                classroom,
                node,
                asked,
                success: None,
                lessons: BTreeMap::new(),
                seen: Vec::new(),
                end: String::new(),
                error: None,
                code: None,
                stayed: false,
            },
        }
    }
}
