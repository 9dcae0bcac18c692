//! One connection of an agent, from the upgrade to its end.
//!
//! Invariant: what the client received is recorded in its order, until the client stops reading the connection.

use std::collections::VecDeque;
use std::future::{Future, pending};
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

use rollcall_loadtest::Client;
use rollcall_loadtest::client::ClientError;
use rollcall_loadtest::view::{Listed, read_agents};

use super::journal::{
    Connection, Journal, Present, Progress, Resumption, Seen, SharedProgress, Success, Told, key, locked,
};

const CLOSE_LIMIT: Duration = Duration::from_secs(1);
/// How long a client waits before it asks a node again that could not list the agents.
const LIST_AGAIN: Duration = Duration::from_millis(50);
const SILENCE: Duration = Duration::from_secs(3600);

/// The time from one set_state to the next.
const STATE_EVERY: Duration = Duration::from_millis(150);
/// The `ref` of a set_state is the sum of this number and the state, which is a number.
const STATES: u64 = 1000;
/// The end of a connection that was open when its client stopped reading. If the node closes it, the client does not
/// see that.
const VANISHED: &str = "vanished";

/// What the agent wants of its connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Orders {
    Stay,
    Close,
    Break,
    Vanish,
}

/// The outcome of connect_request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    Waiting,
    Entered,
    Refused,
}

/// A connection to be made, and what it is for.
pub(super) struct Errand {
    pub(super) address: SocketAddr,
    /// The address at which the node lists agents.
    pub(super) admin: SocketAddr,
    pub(super) token: String,
    pub(super) label: &'static str,
    pub(super) resumes: bool,
    /// The lessons that the connection joins, one after the other.
    pub(super) joins: VecDeque<String>,
    /// What the agent knows from its connections before.
    pub(super) known: Progress,
    /// The progress of the agent's latest connection with offsets.
    pub(super) latest: Arc<Mutex<Option<SharedProgress>>>,
    /// This connection's progress.
    pub(super) progress: SharedProgress,
    pub(super) over: watch::Receiver<bool>,
    /// True once no agent sets its state any more.
    pub(super) settled: watch::Receiver<bool>,
    /// What the client was told of its lesson before the join that is under way.
    pub(super) before_join: Told,
    pub(super) log: Connection,
}

impl Errand {
    /// Connects, reads until the connection ends, and returns what the client received.
    pub(super) async fn run(
        mut self,
        journal: &Journal,
        orders: watch::Receiver<Orders>,
        outcome: watch::Sender<Outcome>,
    ) -> Connection {
        let mut over = self.over.clone();
        let entered = tokio::select! {
            entered = self.enter() => entered,
            _ = over.wait_for(|over| *over) => Err("everybody leaves".to_owned()),
        };
        match entered {
            Ok(client) => {
                let present = journal.enter(&self.log, Arc::clone(&self.progress));
                outcome.send_replace(Outcome::Entered);
                self.log.end = self.stay(client, journal, present, orders).await;
                self.log.stayed = *over.borrow() && self.log.end != VANISHED;
            }
            Err(why) => {
                self.log.end = why;
                outcome.send_replace(Outcome::Refused);
            }
        }
        self.log
    }

    async fn enter(&mut self) -> Result<Client, String> {
        let mut client = Client::connect(self.address).await.map_err(|error| self.ended_by(error))?;
        let mut request = json!({"token": self.token, "classroom_id": self.log.classroom, "agent_label": self.label});
        if self.resumes {
            request["resume"] = match &self.log.asked {
                None => json!({}),
                Some(Resumption { epoch, offset, lesson }) => {
                    let mut resume = json!({"epoch": epoch, "offset": offset});
                    if let Some(lesson) = lesson {
                        resume["lesson_id"] = json!(lesson);
                    }
                    resume
                }
            };
        }
        let success = client.connect_request_with(request).await.map_err(|error| self.ended_by(error))?;
        let session = success["session_id"].as_i64().ok_or_else(|| format!("no session id: {success}"))?;
        self.log.success = Some(Success {
            session,
            at: Instant::now(),
            sid: success["sid"].as_str().unwrap_or_default().to_owned(),
            epoch: success["epoch"].as_str().map(str::to_owned),
            offset: success["offset"].as_u64(),
            recovered: success["recovered"].as_bool(),
        });
        let asked = self.log.asked.as_ref().and_then(|asked| asked.lesson.clone());
        let told = match (&asked, success["recovered"] == true) {
            (None, _) => Told::None,
            (Some(lesson), true) => Told::In(lesson.clone()),
            (Some(_), false) => Told::Unknown,
        };
        let lesson = asked.filter(|_| success["recovered"] == true);
        self.log.lessons.extend(lesson.clone().map(|lesson| (lesson, None)));
        self.begin(&success, session, lesson);
        locked(&self.progress).told = told;
        self.join(&mut client).await;
        Ok(client)
    }

    /// Begins the view of a connection. A client that recovered keeps its view. Any other client starts with an empty
    /// view and reads the list.
    fn begin(&self, success: &Value, session: i64, lesson: Option<String>) {
        let mut progress = locked(&self.progress);
        if success["recovered"] == true {
            progress.clone_from(&self.known);
        }
        progress.view.add(session, self.log.agent.clone());
        if let (Some(epoch), Some(offset)) = (success["epoch"].as_str(), success["offset"].as_u64()) {
            progress.position = Some(Resumption { epoch: epoch.to_owned(), offset, lesson });
            *locked(&self.latest) = Some(Arc::clone(&self.progress));
        }
    }

    /// Reads the list of agents. Never returns if the client's view has a list already.
    fn list(&self) -> impl Future<Output = Listed> + use<> {
        let (admin, classroom) = (self.admin, self.log.classroom.clone());
        let listed = locked(&self.progress).listed;
        async move {
            if listed {
                return pending().await;
            }
            loop {
                match read_agents(admin, None, &classroom).await {
                    Ok(agents) => return agents,
                    Err(_) => sleep(LIST_AGAIN).await,
                }
            }
        }
    }

    /// Asks to join the next lesson.
    async fn join(&mut self, client: &mut Client) {
        let Some(lesson) = self.joins.front() else { return };
        let join = json!({"type": "join_lesson", "ref": 1, "payload": {"lesson_id": lesson}});
        let told = std::mem::take(&mut locked(&self.progress).told);
        self.before_join = told;
        // From here on the connection may leave its lesson at a moment that the client does not know.
        self.log.lessons.retain(|joined, _| joined == lesson);
        // If the connection breaks here, the next read returns the error.
        client.send(&join).await.ok();
    }

    /// Sets the agent's state to the next number.
    async fn set_state(&self, client: &mut Client, journal: &Journal) {
        let number = journal.next_state(self.session());
        let set = json!({"type": "set_state", "ref": STATES + number, "payload": {"state": {"n": number}}});
        // If the connection breaks here, the next read returns the error.
        client.send(&set).await.ok();
    }

    /// Records what the client was told at the end, and returns the end in words.
    fn ended_by(&mut self, error: ClientError) -> String {
        let end = error.to_string();
        match error {
            ClientError::Closed(closing) => (self.log.error, self.log.code) = (closing.error, closing.code),
            ClientError::Unexpected(message) => self.log.error = Some(message),
            _ => {}
        }
        end
    }

    fn session(&self) -> i64 {
        self.log.success.as_ref().map_or(0, |success| success.session)
    }

    async fn stay(
        &mut self,
        mut client: Client,
        journal: &Journal,
        present: Present<'_>,
        mut orders: watch::Receiver<Orders>,
    ) -> String {
        let mut list = pin!(self.list());
        let mut listed = false;
        let mut states = interval(STATE_EVERY);
        states.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                agents = &mut list, if !listed => {
                    listed = true;
                    let mut progress = locked(&self.progress);
                    progress.view.list(agents);
                    progress.listed = true;
                }
                _ = states.tick() => {
                    if !*self.settled.borrow() {
                        self.set_state(&mut client, journal).await;
                    }
                }
                message = client.next_message(SILENCE) => match message {
                    Ok(message) => {
                        if self.note(&message, journal) {
                            self.join(&mut client).await;
                        }
                    }
                    Err(error) => return self.ended_by(error),
                },
                changed = orders.changed() => {
                    let order = *orders.borrow_and_update();
                    match order {
                        Orders::Stay if changed.is_ok() => {}
                        Orders::Stay | Orders::Break => return "broken".to_owned(),
                        Orders::Close => {
                            // A stopped node does not answer the close frame.
                            timeout(CLOSE_LIMIT, client.close()).await.ok();
                            return "left".to_owned();
                        }
                        Orders::Vanish => {
                            drop(present);
                            let gone = orders.wait_for(|order| matches!(order, Orders::Break | Orders::Close));
                            gone.await.ok();
                            return VANISHED.to_owned();
                        }
                    }
                }
            }
        }
    }

    /// Records a message. Returns true if the client is in a lesson and may join the next one.
    fn note(&mut self, message: &Value, journal: &Journal) -> bool {
        match message["type"].as_str() {
            Some("ack") => {
                if let Some(number) = message["ref"].as_u64().and_then(|reference| reference.checked_sub(STATES)) {
                    if message["status"] == "SUCCESS" {
                        journal.state_acked(self.session(), number);
                    }
                    return false;
                }
                let joined = self.joins.pop_front().filter(|_| message["status"] == "SUCCESS");
                let before = std::mem::take(&mut self.before_join);
                locked(&self.progress).told = joined.clone().map_or(before, Told::In);
                if let Some(lesson) = &joined {
                    self.log.lessons.entry(lesson.clone()).or_insert(Some(self.log.seen.len()));
                    if let Some(position) = &mut locked(&self.progress).position {
                        position.lesson = Some(lesson.clone());
                    }
                }
                return joined.is_some();
            }
            Some(kind) if kind.ends_with("_session_error") => return false,
            _ => {}
        }
        let offset = message["offset"].as_u64();
        let body = if offset.is_some() { &message["event"] } else { message };
        self.log.seen.push(Seen { offset, key: key(body) });
        let mut progress = locked(&self.progress);
        progress.view.hear(body);
        if let (Some(offset), Some(position)) = (offset, &mut progress.position) {
            position.offset = position.offset.max(offset);
        }
        false
    }
}
