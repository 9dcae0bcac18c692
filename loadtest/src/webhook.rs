//! A receiver of the webhook that can refuse, hang, end and start again. It keeps a ledger of the events that it took.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use serde_json::Value;

const PAUSE: Duration = Duration::from_millis(3);
/// How long a request may take to arrive, so that a request without an end does not keep its thread for ever.
const READ_LIMIT: Duration = Duration::from_secs(60);

/// A secret of 32 bytes, for gateways that post to a [`Receiver`].
pub const SECRET: &str = "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";

/// How the receiver answers requests.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Mood {
    /// The receiver answers 200, and keeps the events.
    #[default]
    Takes,
    /// The receiver answers with this status.
    Answers(u16),
    /// The receiver answers with this status if an event of this classroom is in the request, and accepts other
    /// requests.
    AnswersClassroom(u16, String),
    /// The receiver answers with this status if an event of this agent is in the request.
    AnswersAgent(u16, String),
    /// The receiver does not answer.
    Hangs,
}

/// An event that the receiver took.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Taken {
    /// The epoch of the offset.
    pub epoch: String,
    /// The offset.
    pub offset: u64,
    /// The classroom.
    pub classroom: String,
    /// Why the agent left.
    pub reason: Option<String>,
    /// The event as the seed's JSON.
    pub event: Value,
}

impl Taken {
    /// Returns the key of the event, such as `agent.entered 7`, as the chaos suite names events.
    #[must_use]
    pub fn key(&self) -> String {
        let id = &self.event["id"];
        format!("agent.{} {}", id["operation"].as_str().unwrap_or_default(), id["sequence_id"])
    }
}

/// A request.
#[derive(Debug, Clone)]
pub struct Posted {
    /// The headers by names in lower case.
    pub headers: BTreeMap<String, String>,
    /// The body, byte for byte.
    pub body: Vec<u8>,
}

#[derive(Default)]
struct State {
    mood: Mood,
    alive: bool,
    taken: Vec<Taken>,
    latest: Option<Posted>,
    requests: usize,
    connections: Vec<TcpStream>,
}

/// The receiver. It listens until it is killed or dropped.
pub struct Receiver {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
}

impl Receiver {
    /// Starts a receiver that takes everything.
    ///
    /// # Errors
    /// Returns an error if there is no port.
    pub fn start() -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let this = Self { address: listener.local_addr()?, state: Arc::default() };
        this.listen(listener)?;
        Ok(this)
    }

    /// Returns the URL of the receiver.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}/events", self.address)
    }

    /// Changes how the receiver answers.
    pub fn set(&self, mood: Mood) {
        self.lock().mood = mood;
    }

    /// Closes the receiver's port and all its connections.
    pub fn kill(&self) {
        let mut state = self.lock();
        state.alive = false;
        for connection in state.connections.drain(..) {
            // An error means that the connection is closed already.
            connection.shutdown(std::net::Shutdown::Both).ok();
        }
    }

    /// Starts the receiver again at the same address, with the same ledger.
    ///
    /// # Errors
    /// Returns an error if the address is taken.
    pub fn restart(&self) -> io::Result<()> {
        let listener =
            crate::wait::poll(READ_LIMIT, "the receiver's address", || match TcpListener::bind(self.address) {
                Ok(listener) => Ok(Some(listener)),
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => Ok(None),
                Err(error) => Err(error),
            })?;
        self.listen(listener)
    }

    /// Returns the events of all requests that the receiver took, in their order. An event may be there more than once.
    #[must_use]
    pub fn taken(&self) -> Vec<Taken> {
        self.lock().taken.clone()
    }

    /// Returns the events since the last call, which are removed from the receiver. Use this if there are too many
    /// events to keep in memory.
    #[must_use]
    pub fn drain(&self) -> Vec<Taken> {
        std::mem::take(&mut self.lock().taken)
    }

    /// Returns how many requests came, whether or not the receiver took them.
    #[must_use]
    pub fn requests(&self) -> usize {
        self.lock().requests
    }

    /// Returns the latest request.
    #[must_use]
    pub fn latest(&self) -> Option<Posted> {
        self.lock().latest.clone()
    }

    /// Returns the events that remain if offsets not above the last one of their classroom and epoch are ignored, as an
    /// app should do.
    #[must_use]
    pub fn ledger(&self) -> Vec<Taken> {
        deduplicated(self.taken())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn listen(&self, listener: TcpListener) -> io::Result<()> {
        listener.set_nonblocking(true)?;
        self.lock().alive = true;
        let state = Arc::clone(&self.state);
        thread::spawn(move || {
            while locked(&state).alive {
                match listener.accept() {
                    Ok((stream, _)) => {
                        let state = Arc::clone(&state);
                        // An error ends only the thread of this connection: the gateway closes a connection after its
                        // last request.
                        thread::spawn(move || serve(&stream, &state).ok());
                    }
                    Err(_) => thread::sleep(PAUSE),
                }
            }
        });
        Ok(())
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.kill();
    }
}

fn locked(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

fn deduplicated(taken: Vec<Taken>) -> Vec<Taken> {
    let mut last: BTreeMap<(String, String), u64> = BTreeMap::new();
    let is_new = |taken: &Taken| {
        let last = last.entry((taken.epoch.clone(), taken.classroom.clone())).or_default();
        let new = taken.offset > *last;
        *last = taken.offset.max(*last);
        new
    };
    let mut new = taken;
    new.retain(is_new);
    new
}

fn serve(stream: &TcpStream, state: &Mutex<State>) -> io::Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(READ_LIMIT))?;
    {
        let mut state = locked(state);
        if !state.alive {
            return Ok(());
        }
        state.connections.push(stream.try_clone()?);
    }
    let mut reader = BufReader::new(stream);
    loop {
        let Some(posted) = read(&mut reader)? else { return Ok(()) };
        let events = events(&posted.body);
        locked(state).requests += 1;
        let status = loop {
            let mut state = locked(state);
            if !state.alive {
                return Ok(());
            }
            let status = match &state.mood {
                Mood::Takes => 200,
                Mood::Answers(status) => *status,
                Mood::AnswersClassroom(status, classroom) => {
                    if events.iter().any(|event| event.classroom == *classroom) { *status } else { 200 }
                }
                Mood::AnswersAgent(status, agent) => {
                    let of_agent = |taken: &Taken| taken.event["payload"]["agent_id"] == agent.as_str();
                    if events.iter().any(of_agent) { *status } else { 200 }
                }
                Mood::Hangs => 0,
            };
            if status == 200 {
                state.taken.extend(events);
                state.latest = Some(posted);
                break status;
            }
            if status != 0 {
                break status;
            }
            drop(state);
            thread::sleep(PAUSE);
        };
        let mut answers = stream;
        answers.write_all(format!("HTTP/1.1 {status} X\r\ncontent-length: 0\r\n\r\n").as_bytes())?;
    }
}

fn read(reader: &mut BufReader<&TcpStream>) -> io::Result<Option<Posted>> {
    let mut headers = BTreeMap::new();
    let mut line = String::new();
    if reader.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    loop {
        line.clear();
        if reader.read_line(&mut line)? == 0 {
            return Ok(None);
        }
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
    let length = headers.get("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    Ok(Some(Posted { headers, body }))
}

/// Returns the events of a body. An invalid body counts as no events, so the test that expects its events fails.
fn events(body: &[u8]) -> Vec<Taken> {
    let Ok(body) = serde_json::from_slice::<Value>(body) else { return Vec::new() };
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let epoch = text(&body["epoch"]).unwrap_or_default();
    let event = |event: &Value| Taken {
        epoch: epoch.clone(),
        offset: event["offset"].as_u64().unwrap_or_default(),
        classroom: text(&event["classroom_id"]).unwrap_or_default(),
        reason: text(&event["reason"]),
        event: event["event"].clone(),
    };
    body["events"].as_array().into_iter().flatten().map(event).collect()
}

/// Returns the faults of a ledger, in words: an event is missing, is out of order, or is not in the stream. `wanted`
/// has the keys of each classroom in the stream's order. An event that the stream holds twice counts once.
#[must_use]
pub fn faults(ledger: &[Taken], wanted: &BTreeMap<String, Vec<String>>) -> Vec<String> {
    let mut faults = Vec::new();
    let classrooms: BTreeSet<_> =
        wanted.keys().cloned().chain(ledger.iter().map(|taken| taken.classroom.clone())).collect();
    for classroom in classrooms {
        let got = once(ledger.iter().filter(|taken| taken.classroom == classroom).map(Taken::key));
        let wanted = once(wanted.get(&classroom).into_iter().flatten().cloned());
        if got != wanted {
            let differs = got.iter().zip(&wanted).take_while(|(got, wanted)| got == wanted).count();
            let (got, wanted) = (got.get(differs), wanted.get(differs));
            faults.push(format!("the webhook of {classroom}: event {differs} is {got:?}, and was to be {wanted:?}"));
        }
    }
    faults
}

/// Returns the distinct keys, in the order of their first occurrence.
fn once(keys: impl Iterator<Item = String>) -> Vec<String> {
    let mut seen = BTreeSet::new();
    keys.filter(|key| seen.insert(key.clone())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(offset: u64, session: i64) -> Taken {
        let event = serde_json::json!({"id": {"operation": "entered", "sequence_id": session}});
        Taken { epoch: "e".to_owned(), offset, classroom: "c".to_owned(), reason: None, event }
    }

    #[test]
    fn a_hole_a_swap_and_a_stranger_are_found() {
        let wanted =
            BTreeMap::from([("c".to_owned(), ["agent.entered 1", "agent.entered 2"].map(str::to_owned).to_vec())]);
        let wrong = |ledger: &[Taken]| faults(&deduplicated(ledger.to_vec()), &wanted).len();
        assert_eq!(wrong(&[taken(1, 1), taken(2, 2)]), 0);
        assert_eq!(wrong(&[taken(1, 1), taken(2, 2), taken(1, 1)]), 0, "a late request is ignored");
        assert_eq!(wrong(&[taken(2, 2), taken(1, 1)]), 1, "its first was ignored");
        assert_eq!((wrong(&[taken(1, 1)]), wrong(&[]), wrong(&[taken(1, 1), taken(2, 2), taken(3, 3)])), (1, 1, 1));
    }
}
