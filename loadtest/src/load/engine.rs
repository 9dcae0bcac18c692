//! Thousands of agents in one thread: an epoll loop that starts them when they are due, and carries
//! out one order at a time.
//!
//! Invariant: `present` is the number of connections whose step is `Present`.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::ops::Range;
use std::time::Duration;

use mio::{Events, Poll, Token};

use super::arrivals::Arrivals;
use super::clock::{SECOND, now};
use super::connection::{Connection, Step};
use super::order::{Answer, Goal, Order, Tally};
use super::pushes::Pushes;
use super::requests::Requests;

/// The token of the waker, which belongs to no connection.
pub(super) const WAKE: Token = Token(usize::MAX);
/// How many connections are begun before the engine looks at answers again.
const DIALS_AT_ONCE: usize = 64;
const LEAVE_LIMIT: u64 = 30 * SECOND;
const READ_BUFFER: usize = 256 * 1024;

/// The answer that the engine has still to give.
pub(super) enum Pending {
    Nothing,
    Arrivals(Arrivals),
    DisconnectQueue { deadline: u64 },
    Pushes { wanted: u64, deadline: u64 },
    Presence { agents: Range<usize>, deadline: u64 },
}

pub(super) struct Engine {
    pub(super) poll: Poll,
    pub(super) target: SocketAddr,
    pub(super) goal: Goal,
    pub(super) returning: bool,
    /// The moments at which agents that lost their connection reconnect.
    pub(super) returns: BinaryHeap<Reverse<(u64, usize)>>,
    pub(super) pending: Pending,
    pub(super) requests: Requests,
    pub(super) connections: Vec<Connection>,
    pub(super) pushes: Pushes,
    pub(super) buffer: Vec<u8>,
    pub(super) present: usize,
    pub(super) leaving: usize,
    pub(super) lost: BTreeMap<String, u64>,
    pub(super) hinted: u64,
    pub(super) unhinted: u64,
    pub(super) recovered: u64,
    /// The epoch of the offsets from which agents resume.
    pub(super) epoch: String,
}

impl Engine {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self {
            poll: Poll::new()?,
            target: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            goal: Goal::Connected,
            returning: false,
            returns: BinaryHeap::new(),
            pending: Pending::Nothing,
            requests: Requests::new(),
            connections: Vec::new(),
            pushes: Pushes::new(),
            buffer: vec![0; READ_BUFFER],
            present: 0,
            leaving: 0,
            lost: BTreeMap::new(),
            hinted: 0,
            unhinted: 0,
            recovered: 0,
            epoch: String::new(),
        })
    }

    pub(super) fn registry(&self) -> &mio::Registry {
        self.poll.registry()
    }

    /// Waits for the next event and handles it.
    pub(super) fn turn(&mut self, events: &mut Events) -> io::Result<()> {
        match self.poll.poll(events, Some(self.until_next())) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            polled => polled?,
        }
        for event in events.iter().filter(|event| event.token() != WAKE) {
            let Token(agent) = event.token();
            if event.is_writable() && self.connections[agent].step == Step::Dialling {
                self.upgrade(agent);
            }
            if event.is_readable() || event.is_read_closed() || event.is_error() {
                self.read(agent, event.is_read_closed() || event.is_error());
            }
        }
        self.start_those_due();
        Ok(())
    }

    /// Takes an order. If it cannot be answered at once, [`settle`](Self::settle) answers it.
    pub(super) fn take(&mut self, order: Order) -> Option<Answer> {
        let done = Answer::Done { at: now(), in_time: true };
        match order {
            Order::Prepare { crowd, target } => {
                self.target = target;
                self.requests.prepare(&crowd, target);
                let wanted = self.connections.len() + crowd.agents;
                self.connections.resize_with(wanted, Connection::away);
                return Some(done);
            }
            Order::Arrive(order) => {
                self.goal = order.goal;
                self.pending = Pending::Arrivals(Arrivals::new(order));
            }
            Order::Leave { first, count } => {
                (first..first + count).for_each(|agent| self.leave(agent));
                self.pending = Pending::DisconnectQueue { deadline: now() + LEAVE_LIMIT };
            }
            Order::Listen(listen) => {
                self.pushes.listen(listen);
                return Some(done);
            }
            Order::Await { pushes, deadline } => {
                self.pending = Pending::Pushes { wanted: pushes, deadline };
            }
            Order::Stall { every } => {
                for connection in self.connections.iter_mut().step_by(every) {
                    connection.stall();
                }
                return Some(done);
            }
            Order::Return { on } => {
                self.returning = on;
                self.returns.clear();
                return Some(done);
            }
            Order::AwaitPresent { first, count, deadline } => {
                self.pending = Pending::Presence { agents: first..first + count, deadline };
            }
            Order::Count => return Some(Answer::Counted(self.tally())),
        }
        None
    }

    /// Returns the outstanding answer, as soon as its condition holds.
    pub(super) fn settle(&mut self) -> Option<Answer> {
        let at = now();
        let (reached, deadline) = match &mut self.pending {
            Pending::Nothing => return None,
            Pending::Arrivals(arrivals) => {
                let answer = Answer::Arrived(arrivals.finished(at)?);
                self.pending = Pending::Nothing;
                return Some(answer);
            }
            Pending::DisconnectQueue { deadline } => (self.leaving == 0, *deadline),
            Pending::Pushes { wanted, deadline } => (self.pushes.count >= *wanted, *deadline),
            Pending::Presence { agents, deadline } => {
                let present = |connection: &Connection| connection.step == Step::Present;
                // The agents are checked one by one only when enough are present for all of them to be.
                let enough = self.present >= agents.len();
                (enough && self.connections[agents.clone()].iter().all(present), *deadline)
            }
        };
        if !reached && at < deadline {
            return None;
        }
        self.pending = Pending::Nothing;
        Some(Answer::Done { at, in_time: reached })
    }

    fn tally(&self) -> Tally {
        Tally {
            present: self.present,
            pushes: self.pushes.count,
            push_bytes: self.pushes.bytes,
            lost: self.lost.clone(),
            hinted: self.hinted,
            unhinted: self.unhinted,
            recovered: self.recovered,
            latencies: self.pushes.latencies(),
        }
    }

    fn until_next(&self) -> Duration {
        let at = now();
        let arrival = match &self.pending {
            Pending::Arrivals(arrivals) => arrivals.next_due(),
            _ => None,
        };
        let comeback = self.returns.peek().map(|Reverse((due, _))| *due);
        let longest = at + SECOND / 10;
        let next = arrival.into_iter().chain(comeback).fold(longest, u64::min);
        Duration::from_nanos(next.saturating_sub(at))
    }

    fn start_those_due(&mut self) {
        let at = now();
        for _ in 0..DIALS_AT_ONCE {
            let Pending::Arrivals(arrivals) = &mut self.pending else {
                break;
            };
            let Some((agent, due)) = arrivals.start_next(at) else {
                break;
            };
            self.start(agent, Some(due));
        }
        for _ in 0..DIALS_AT_ONCE {
            match self.returns.peek() {
                Some(&Reverse((due, agent))) if due <= at => {
                    self.returns.pop();
                    self.come_again(agent);
                }
                _ => break,
            }
        }
    }
}
