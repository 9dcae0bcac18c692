//! The worker processes behind one command, and the orders to all of them.

use std::io::{self, BufRead, BufReader, IsTerminal, Write};
use std::net::SocketAddr;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use super::clock::{SECOND, now};
use super::order::{Answer, Arrive, Arrived, Crowd, Goal, Listen, Order, Pace, Tally};

/// The agents of one worker. They are fewer than the 20,000 files that a process may have open.
const AGENTS_A_WORKER: usize = 18_500;
/// How much later than its deadline a worker may answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(60);
/// No wave takes longer than this: an agent that has not arrived by then has failed.
const ARRIVAL_LIMIT: u64 = 120 * SECOND;
/// How many agents connect at once when nothing is measured.
const GATHER_WINDOW: usize = 200;
const GATHER_LIMIT: Duration = Duration::from_secs(60);
/// The time that workers need to read an order, so that all of them start at the same moment.
const HEAD_START: u64 = SECOND / 50;

struct Worker {
    child: Child,
    orders: ChildStdin,
    answers: Receiver<Answer>,
    prepared: usize,
    present: usize,
}

/// Agents that were prepared together: for each worker, the first agent and the number of agents.
#[derive(Debug, Clone)]
pub(crate) struct Band {
    parts: Vec<(usize, usize)>,
}

impl Band {
    pub(crate) fn agents(&self) -> usize {
        self.parts.iter().map(|(_, count)| count).sum()
    }
}

pub(crate) struct Crew {
    workers: Vec<Worker>,
}

impl Crew {
    /// Starts as many workers as this many agents need.
    pub(crate) fn for_agents(agents: usize) -> io::Result<Self> {
        Self::of(agents.div_ceil(AGENTS_A_WORKER).max(1))
    }

    /// Starts this many workers.
    pub(crate) fn of(workers: usize) -> io::Result<Self> {
        let workers = (0..workers).map(|_| Worker::start());
        Ok(Self { workers: workers.collect::<io::Result<_>>()? })
    }

    /// Divides a crowd among the workers, room by room.
    pub(crate) fn prepare(&mut self, crowd: &Crowd, target: SocketAddr) -> io::Result<Band> {
        let rooms = crowd.agents.div_ceil(crowd.room_size);
        let share = rooms.div_ceil(self.workers.len()) * crowd.room_size;
        let last = crowd.first + crowd.agents;
        let mut parts = Vec::new();
        for index in 0..self.workers.len() {
            let first = (crowd.first + index * share).min(last);
            let agents = share.min(last - first);
            let part = Crowd { first, agents, ..crowd.clone() };
            parts.push(self.prepare_one(index, part, target)?);
        }
        Ok(Band { parts })
    }

    /// Gives each worker a crowd of its own and a server of its own.
    pub(crate) fn prepare_each(&mut self, each: &[(Crowd, SocketAddr)]) -> io::Result<Band> {
        let mut parts = Vec::new();
        for (index, (crowd, target)) in each.iter().enumerate() {
            parts.push(self.prepare_one(index, crowd.clone(), *target)?);
        }
        Ok(Band { parts })
    }

    fn prepare_one(&mut self, index: usize, crowd: Crowd, target: SocketAddr) -> io::Result<(usize, usize)> {
        let worker = &mut self.workers[index];
        let part = (worker.prepared, crowd.agents);
        worker.prepared += crowd.agents;
        worker.order(&Order::Prepare { crowd, target })?;
        worker.answer(Duration::ZERO)?;
        Ok(part)
    }

    /// Lets a band arrive. `pace` and `goal` are those of the whole band.
    pub(crate) fn arrive(&mut self, band: &Band, pace: Pace, goal: Goal) -> io::Result<Arrived> {
        let start = now() + HEAD_START;
        let all = band.agents() as f64;
        let coming = match pace {
            Pace::Rate(rate) => (all / rate * SECOND as f64) as u64,
            Pace::Window(_) => 0,
        };
        let deadline = start + coming + ARRIVAL_LIMIT;
        for (worker, &(first, count)) in self.workers.iter_mut().zip(&band.parts) {
            let share = count as f64 / all;
            let pace = match pace {
                Pace::Rate(rate) => Pace::Rate(rate * share),
                Pace::Window(size) => Pace::Window(((size as f64 * share) as usize).max(1)),
            };
            worker.order(&Order::Arrive(Arrive { first, count, pace, goal, start, deadline }))?;
        }
        let mut all = Arrived { began: start, ended: start, ..Arrived::default() };
        for answer in self.answers(Duration::from_nanos(coming + ARRIVAL_LIMIT))? {
            if let Answer::Arrived(part) = answer {
                all.ended = all.ended.max(part.ended);
                all.samples.extend(part.samples);
                for (reason, count) in part.failures {
                    *all.failures.entry(reason).or_default() += count;
                }
            }
        }
        Ok(all)
    }

    /// Makes a band leave. Agents that are not connected are ignored.
    pub(crate) fn leave(&mut self, band: &Band) -> io::Result<()> {
        for (worker, &(first, count)) in self.workers.iter_mut().zip(&band.parts) {
            worker.order(&Order::Leave { first, count })?;
        }
        self.answers(ANSWER_LIMIT).map(drop)
    }

    /// Starts to count pushes from zero, measured as `listen` says.
    pub(crate) fn listen(&mut self, listen: Listen) -> io::Result<()> {
        self.all(&Order::Listen(listen)).map(drop)
    }

    /// Runs `before`, and waits for the expected pushes of all workers. Returns the moment at which the last push came,
    /// or `None` if some did not come within `limit`.
    pub(crate) fn pushes(
        &mut self,
        band: &Band,
        each: f64,
        limit: Duration,
        before: impl FnOnce() -> io::Result<()>,
    ) -> io::Result<Option<u64>> {
        let deadline = now() + limit.as_nanos() as u64;
        for (worker, &(_, count)) in self.workers.iter_mut().zip(&band.parts) {
            let pushes = (count as f64 * each).round() as u64;
            worker.order(&Order::Await { pushes, deadline })?;
        }
        before()?;
        self.last_moment(limit)
    }

    /// Connects a band for a later measurement. A refused agent tries again.
    pub(crate) fn gather(&mut self, band: &Band) -> io::Result<()> {
        self.return_by_themselves(true)?;
        self.arrive(band, Pace::Window(GATHER_WINDOW), Goal::Joined)?;
        let present = self.presence(band, GATHER_LIMIT)?;
        self.return_by_themselves(false)?;
        match present {
            Some(_) => Ok(()),
            None => Err(io::Error::other(format!("not all of {} came in", band.agents()))),
        }
    }

    /// Waits until the whole band is present. Returns the moment, or `None` after `limit`.
    pub(crate) fn presence(&mut self, band: &Band, limit: Duration) -> io::Result<Option<u64>> {
        let deadline = now() + limit.as_nanos() as u64;
        for (worker, &(first, count)) in self.workers.iter_mut().zip(&band.parts) {
            worker.order(&Order::AwaitPresent { first, count, deadline })?;
        }
        self.last_moment(limit)
    }

    pub(crate) fn stall(&mut self, every: usize) -> io::Result<()> {
        self.all(&Order::Stall { every }).map(drop)
    }

    pub(crate) fn return_by_themselves(&mut self, on: bool) -> io::Result<()> {
        self.all(&Order::Return { on }).map(drop)
    }

    pub(crate) fn count(&mut self) -> io::Result<Tally> {
        let mut all = Tally::default();
        for answer in self.all(&Order::Count)? {
            if let Answer::Counted(part) = answer {
                all.add(part);
            }
        }
        Ok(all)
    }

    /// Returns the workers' process ids. Their memory does not count as a server's.
    pub(crate) fn pids(&self) -> Vec<u32> {
        self.workers.iter().map(|worker| worker.child.id()).collect()
    }

    fn last_moment(&mut self, limit: Duration) -> io::Result<Option<u64>> {
        let mut last = Some(0);
        for answer in self.answers(limit)? {
            if let Answer::Done { at, in_time } = answer {
                last = last.filter(|_| in_time).map(|last: u64| last.max(at));
            }
        }
        Ok(last)
    }

    fn all(&mut self, order: &Order) -> io::Result<Vec<Answer>> {
        for worker in &mut self.workers {
            worker.order(order)?;
        }
        self.answers(Duration::ZERO)
    }

    fn answers(&mut self, limit: Duration) -> io::Result<Vec<Answer>> {
        let mut answers = Vec::new();
        for index in 0..self.workers.len() {
            let others: usize = self.workers.iter().map(|worker| worker.present).sum();
            let worker = &mut self.workers[index];
            let others = others - worker.present;
            answers.push(worker.answer_showing(limit, others)?);
        }
        Ok(answers)
    }
}

impl Worker {
    fn start() -> io::Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .arg("worker")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let orders = child.stdin.take().ok_or(io::ErrorKind::BrokenPipe)?;
        let output = child.stdout.take().ok_or(io::ErrorKind::BrokenPipe)?;
        let (sender, answers) = mpsc::sync_channel(64);
        thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                let answer = serde_json::from_str(&line);
                if answer.is_ok_and(|answer| sender.send(answer).is_err()) {
                    break;
                }
            }
        });
        Ok(Self { child, orders, answers, prepared: 0, present: 0 })
    }

    fn order(&mut self, order: &Order) -> io::Result<()> {
        let mut line = serde_json::to_vec(order)?;
        line.push(b'\n');
        self.orders.write_all(&line)?;
        self.orders.flush()
    }

    fn answer(&mut self, limit: Duration) -> io::Result<Answer> {
        self.answer_showing(limit, 0)
    }

    fn answer_showing(&mut self, limit: Duration, others: usize) -> io::Result<Answer> {
        loop {
            match self.answers.recv_timeout(limit + ANSWER_LIMIT) {
                Ok(Answer::Progress { present }) => {
                    self.present = present;
                    show(others + present);
                }
                Ok(answer) => return Ok(answer),
                Err(RecvTimeoutError::Timeout) => {
                    return Err(io::Error::other("a worker does not answer"));
                }
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(io::Error::other("a worker has ended"));
                }
            }
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // An error means that the process has ended already.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

fn show(present: usize) {
    if io::stderr().is_terminal() {
        eprint!("\r\x1b[K  {present} present");
    }
}
