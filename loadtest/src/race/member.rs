//! An agent in a race: its way in, its view from then on, and its way out.

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
use crate::view::{Agents, View, read_agents};

const LABEL: &str = "web";
/// A member gets no event while no agent comes or goes.
const SILENCE: Duration = Duration::from_secs(3600);

const ENTER_LIMIT: Duration = Duration::from_secs(20);
const LIST_LIMIT: Duration = Duration::from_secs(10);
const ASK_AGAIN: Duration = Duration::from_millis(5);

/// Where a member enters.
pub(super) struct Ticket {
    pub(super) address: SocketAddr,
    pub(super) admin: SocketAddr,
    pub(super) node: usize,
    pub(super) classroom: String,
    pub(super) user: String,
    /// How long after the start.
    pub(super) pause: Duration,
    pub(super) resumes: bool,
}

/// Upgraded, and waiting for the start.
pub(super) struct Connected {
    ticket: Ticket,
    client: Client,
    go: watch::Receiver<bool>,
}

/// How a member leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    /// By a close frame.
    Close,
    /// The socket is dropped.
    Break,
}

/// An agent in a classroom.
pub(super) struct Member {
    pub(super) classroom: String,
    pub(super) session: i64,
    pub(super) agent: String,
    node: usize,
    view: Arc<Mutex<View>>,
    /// Dropped, the connection breaks.
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
    /// Enters at the start, and reads the list of agents right after its success.
    pub(super) async fn enter(mut self) -> io::Result<Member> {
        let Ticket { address, admin, node, classroom, user, pause, resumes } = self.ticket;
        let mut request = json!({"token": token::participant(&user), "classroom_id": classroom, "agent_label": LABEL});
        if resumes {
            request["resume"] = json!({});
        }
        self.go.wait_for(|go| *go).await.map_err(io::Error::other)?;
        sleep(pause).await;
        let (client, success) = let_in(self.client, address, request).await?;
        let session = success["session_id"].as_i64();
        let session = session.ok_or_else(|| io::Error::other(format!("no session id: {success}")))?;
        let view = Arc::new(Mutex::new(View::default()));
        let (ending, ended) = oneshot::channel();
        let task = tokio::spawn(follow(client, Arc::clone(&view), ended));
        let agents = read_in_time(admin, &classroom).await?;
        locked(&view).list(agents);
        let agent = format!("{LABEL}.{user}.{}", token::AUDIENCE);
        Ok(Member { classroom, session, agent, node, view, ending, task })
    }
}

impl Member {
    /// Who is there, as it knows now.
    pub(super) fn view(&self) -> MutexGuard<'_, View> {
        locked(&self.view)
    }

    /// Leaves, and returns when its connection is over.
    pub(super) async fn leave(self, ending: Ending) -> io::Result<()> {
        // Nobody listens where the connection has ended before, of which the task tells.
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

/// Comes again for a while where the node says so: it may be too busy for its own limits.
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

/// Tries again for a while: of hundreds of connects at once, a node refuses some.
async fn read_in_time(admin: SocketAddr, classroom: &str) -> io::Result<Agents> {
    let deadline = Instant::now() + LIST_LIMIT;
    loop {
        match read_agents(admin, classroom).await {
            Err(error) if Instant::now() >= deadline => return Err(error),
            Err(_) => sleep(ASK_AGAIN).await,
            Ok(agents) => return Ok(agents),
        }
    }
}

async fn follow(
    mut client: Client,
    view: Arc<Mutex<View>>,
    mut ended: oneshot::Receiver<Ending>,
) -> Result<(), ClientError> {
    loop {
        tokio::select! {
            event = client.next_event(SILENCE) => locked(&view).hear(&event?.body),
            ending = &mut ended => {
                if ending == Ok(Ending::Close) {
                    client.close().await?;
                }
                return Ok(());
            }
        }
    }
}

fn locked(view: &Mutex<View>) -> MutexGuard<'_, View> {
    // It is whole after any panic.
    view.lock().unwrap_or_else(PoisonError::into_inner)
}
