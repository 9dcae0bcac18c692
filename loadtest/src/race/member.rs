//! An agent in a race: how it enters, its view from then on, and how it leaves.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use crate::client::{Client, ClientError};
use crate::token;
use crate::view::{Listed, View, read_agents};

const LABEL: &str = "web";
/// A long limit, because a member gets no event while no agent enters or leaves.
const SILENCE: Duration = Duration::from_secs(3600);

const ENTER_LIMIT: Duration = Duration::from_secs(20);
const LIST_LIMIT: Duration = Duration::from_secs(10);
const ASK_AGAIN: Duration = Duration::from_millis(5);

/// How a member reads which agents are there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reading {
    /// From the admin address, after connect_success.
    Admin,
    /// From the clients' address, with its own token, after connect_success.
    Http,
    /// From the roster in connect_success.
    Success,
    /// With the event `roster`, after connect_success.
    Event,
}

impl Reading {
    pub(super) const ALL: [Self; 4] = [Self::Admin, Self::Http, Self::Success, Self::Event];
}

/// Where, when and how a member enters.
pub(super) struct Ticket {
    pub(super) address: SocketAddr,
    pub(super) admin: SocketAddr,
    pub(super) node: usize,
    pub(super) classroom: String,
    pub(super) user: String,
    /// The time after the start at which the member enters.
    pub(super) pause: Duration,
    pub(super) resumes: bool,
    pub(super) reading: Reading,
}

/// A connection that is upgraded and waits for the start.
pub(super) struct Connected {
    ticket: Ticket,
    client: Client,
    go: watch::Receiver<bool>,
}

/// How a member leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    /// The member sends a close frame.
    Close,
    /// The member drops the socket.
    Break,
}

/// An agent in a classroom.
pub(super) struct Member {
    pub(super) classroom: String,
    pub(super) session: i64,
    pub(super) agent: String,
    node: usize,
    view: Arc<Mutex<View>>,
    /// If this is dropped, the connection breaks.
    ending: oneshot::Sender<Ending>,
    task: JoinHandle<Result<(), ClientError>>,
}

impl Ticket {
    pub(super) async fn connect(self, go: watch::Receiver<bool>) -> io::Result<Connected> {
        let client = Client::connect(self.address).await.map_err(io::Error::other)?;
        Ok(Connected { ticket: self, client, go })
    }
}

impl Connected {
    /// Enters at the start, and reads the list of agents right after connect_success.
    pub(super) async fn enter(mut self) -> io::Result<Member> {
        let Ticket { address, admin, node, classroom, user, pause, resumes, reading } = self.ticket;
        let token = token::participant(&user);
        let mut request = json!({"token": token, "classroom_id": classroom, "agent_label": LABEL});
        if reading == Reading::Success {
            request["roster"] = json!(true);
        }
        if resumes {
            request["resume"] = json!({});
        }
        self.go.wait_for(|go| *go).await.map_err(io::Error::other)?;
        sleep(pause).await;
        let (client, success) = let_in(self.client, address, request).await?;
        let session = success["session_id"].as_i64();
        let session = session.ok_or_else(|| io::Error::other(format!("no session id: {success}")))?;
        let mut view = View::default();
        let asks = match reading {
            Reading::Success => {
                let next = success["roster_next"].as_i64();
                view.read(0, &success["roster"], next).map_err(io::Error::other)?;
                next
            }
            Reading::Event => Some(0),
            Reading::Admin | Reading::Http => None,
        };
        let view = Arc::new(Mutex::new(view));
        let (ending, ended) = oneshot::channel();
        let (whole, read) = oneshot::channel();
        let task = tokio::spawn(follow(client, Arc::clone(&view), asks, whole, ended));
        let listed = match reading {
            Reading::Admin => Some(read_in_time(admin, None, &classroom).await?),
            Reading::Http => Some(read_in_time(address, Some(&token), &classroom).await?),
            Reading::Success | Reading::Event => None,
        };
        if let Some(listed) = listed {
            locked(&view).list(listed);
        }
        // The result comes when the whole roster has come. If the connection ended before, the task reports that.
        read.await.ok();
        let agent = format!("{LABEL}.{user}.{}", token::AUDIENCE);
        Ok(Member { classroom, session, agent, node, view, ending, task })
    }
}

impl Member {
    /// Returns the agents that the member knows of.
    pub(super) fn view(&self) -> MutexGuard<'_, View> {
        locked(&self.view)
    }

    /// Leaves, and returns when the connection has ended.
    pub(super) async fn leave(self, ending: Ending) -> io::Result<()> {
        // If the connection has ended before, the task does not listen any more, and reports that end.
        self.ending.send(ending).ok();
        self.task.await.map_err(io::Error::other)?.map_err(io::Error::other)
    }
}

impl fmt::Display for Member {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { classroom, session, agent, node, .. } = self;
        write!(formatter, "{agent} on node {node} in session {session} of {classroom}")
    }
}

/// Enters. If the node says to come again, the client does so for a while, because the node may be too busy for its own
/// limits.
async fn let_in(mut client: Client, address: SocketAddr, request: Value) -> io::Result<(Client, Value)> {
    let deadline = Instant::now() + ENTER_LIMIT;
    loop {
        let after = match client.connect_request_with(request.clone()).await {
            Ok(success) => return Ok((client, success)),
            Err(ClientError::Unexpected(refusal)) if refusal["type"] == "recoverable_session_error" => {
                refusal["payload"]["reconnect_after_ms"].as_u64().unwrap_or_default()
            }
            Err(error) => return Err(io::Error::other(error)),
        };
        if Instant::now() >= deadline {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "a node lets nobody in"));
        }
        sleep(Duration::from_millis(after)).await;
        client = Client::connect(address).await.map_err(io::Error::other)?;
    }
}

/// Reads the list. A failed read is tried again for a while, because a node refuses some of hundreds of simultaneous
/// connects.
async fn read_in_time(address: SocketAddr, token: Option<&str>, classroom: &str) -> io::Result<Listed> {
    let deadline = Instant::now() + LIST_LIMIT;
    loop {
        match read_agents(address, token, classroom).await {
            Err(error) if Instant::now() >= deadline => return Err(error),
            Err(_) => sleep(ASK_AGAIN).await,
            Ok(agents) => return Ok(agents),
        }
    }
}

/// Reads what comes. `asks` is the session after which the member asks for the roster, and `whole` is told when all of
/// it has come.
async fn follow(
    mut client: Client,
    view: Arc<Mutex<View>>,
    mut asks: Option<i64>,
    whole: oneshot::Sender<()>,
    mut ended: oneshot::Receiver<Ending>,
) -> Result<(), ClientError> {
    let mut whole = Some(whole);
    loop {
        match asks {
            Some(after) => client.send(&roster(after)).await?,
            None => drop(whole.take()),
        }
        // Reads until an answer comes.
        loop {
            tokio::select! {
                message = client.next_message(SILENCE) => {
                    let message = message?;
                    if message["type"] == "ack" {
                        asks = page(&view, asks.unwrap_or_default(), &message)?;
                        break;
                    }
                    let event = message.get("offset").and(message.get("event")).unwrap_or(&message);
                    locked(&view).hear(event);
                }
                ending = &mut ended => {
                    if ending == Ok(Ending::Close) {
                        client.close().await?;
                    }
                    return Ok(());
                }
            }
        }
    }
}

fn roster(after: i64) -> Value {
    json!({"type": "roster", "ref": after, "payload": {"after": after}})
}

/// Adds a page of the roster to the view. Returns the session after which the next page begins. If the node was too
/// busy for its own limits, the same page is asked for again.
fn page(view: &Mutex<View>, after: i64, ack: &Value) -> Result<Option<i64>, ClientError> {
    if ack["retry_after_ms"].is_u64() {
        return Ok(Some(after));
    }
    if ack["status"] != "SUCCESS" {
        return Err(ClientError::Unexpected(ack.clone()));
    }
    let next = ack["data"]["next"].as_i64();
    let read = locked(view).read(after, &ack["data"]["agents"], next);
    read.map(|()| next).map_err(|_| ClientError::Unexpected(ack.clone()))
}

fn locked(view: &Mutex<View>) -> MutexGuard<'_, View> {
    // The view is consistent at any time, so a panic with the lock held does no harm.
    view.lock().unwrap_or_else(PoisonError::into_inner)
}
