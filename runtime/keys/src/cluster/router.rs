//! Sends commands concurrently to the masters that have their slots.
//!
//! Invariant: if a slot was moved or its master was replaced, the new master is found: the command follows a node's
//! redirection, and the map is read again. No command runs after its deadline.
use std::{sync::Arc, time::Duration};

use bb8_redis::redis::{Pipeline, RedisError, RedisResult, Value};
use futures_util::future::join_all;
use tokio::time::{Instant, sleep, timeout_at};

use super::{
    map::{Map, Master},
    slot,
    topology::Topology,
};
use crate::{
    address::Endpoint,
    calls::Failure,
    commands::KeyCommand,
    marker::{Mark, Marked},
    names::Names,
    state,
};

/// How many times a command may be sent, to its node or to another one.
const ATTEMPTS: u32 = 6;
/// The pause before a command is sent again that its node cannot carry out yet. It grows with each attempt.
const PAUSE: Duration = Duration::from_millis(20);

/// The answer to a command, or why there is none.
pub(super) type Answer = Result<Value, String>;

/// The router of a cluster.
pub(super) struct Router {
    pub(super) topology: Arc<Topology>,
    pub(super) names: Names,
}

/// A command that has no answer yet.
struct Waiting {
    index: usize,
    /// The node to which another node redirected the command. `None` means the master of its slot.
    node: Option<Endpoint>,
    /// Whether the node is only about to get the slot, and must be asked with ASKING.
    asking: bool,
}

/// The commands for one node.
struct Batch {
    master: Arc<Master>,
    waiting: Vec<Waiting>,
}

impl Router {
    /// Runs the commands, each on the master that has its slot. With `marked`, the write of each master's marker
    /// follows them.
    pub(super) async fn run(&self, deadline: Instant, commands: &[KeyCommand], marked: bool) -> Vec<Answer> {
        let slots: Vec<u16> = commands.iter().map(|command| slot::of(&command.keys[0])).collect();
        let mut answers: Vec<Answer> = slots.iter().map(|slot| Err(format!("no node has slot {slot}"))).collect();
        let mut waiting: Vec<Waiting> =
            (0..commands.len()).map(|index| Waiting { index, node: None, asking: false }).collect();
        for attempt in 1..=ATTEMPTS {
            let map = self.topology.map();
            let batches = self.batches(&map, &slots, waiting);
            let sent = batches.iter().map(|batch| self.send(&map, batch, commands, deadline, marked));
            let outcomes = join_all(sent).await;
            waiting = Vec::new();
            let (mut pause, mut unreached) = (false, Vec::new());
            for (Batch { master, waiting: sent }, outcome) in batches.into_iter().zip(outcomes) {
                let results = match outcome {
                    Ok(results) => results,
                    Err(failure) => {
                        sent.iter()
                            .for_each(|sent| answers[sent.index] = Err(format!("{}: {failure}", master.endpoint)));
                        self.topology.look_soon();
                        if matches!(failure, Failure::NoConnection(_)) {
                            unreached.extend(sent.into_iter().map(|sent| (sent, Arc::clone(&master))));
                        }
                        continue;
                    }
                };
                for (sent, result) in sent.into_iter().zip(results) {
                    let error = match result {
                        Ok(value) => {
                            answers[sent.index] = Ok(value);
                            continue;
                        }
                        Err(error) => error,
                    };
                    let said = state::with_keys(state::describe(&error), &commands[sent.index].keys);
                    answers[sent.index] = Err(format!("{}: {said}", master.endpoint));
                    match self.next(&error, &master.endpoint) {
                        Some(Next::At { node, asking }) => waiting.push(Waiting { node: Some(node), asking, ..sent }),
                        Some(Next::Later) => {
                            pause = true;
                            waiting.push(Waiting { node: None, asking: false, ..sent });
                        }
                        None => {}
                    }
                }
            }
            if !unreached.is_empty() {
                // Nothing was sent, so another master may be asked, if there is one now. If the deadline passes
                // meanwhile, the search goes on without this call.
                timeout_at(deadline, self.topology.look()).await.ok();
                let map = self.topology.map();
                let elsewhere = unreached.into_iter().filter(|(sent, master)| {
                    map.owner(slots[sent.index]).is_some_and(|owner| !Arc::ptr_eq(owner, master))
                });
                waiting.extend(elsewhere.map(|(sent, _)| Waiting { node: None, asking: false, ..sent }));
            }
            if waiting.is_empty() || Instant::now() >= deadline {
                break;
            }
            if pause {
                sleep(PAUSE * attempt).await;
            }
        }
        answers
    }

    /// Returns the commands that have a node, grouped by node.
    fn batches(&self, map: &Map, slots: &[u16], waiting: Vec<Waiting>) -> Vec<Batch> {
        let mut batches: Vec<Batch> = Vec::new();
        for waiting in waiting {
            let master = match &waiting.node {
                Some(node) => self.topology.at(node),
                None => match map.owner(slots[waiting.index]) {
                    Some(owner) => Arc::clone(owner),
                    None => {
                        self.topology.look_soon();
                        continue;
                    }
                },
            };
            match batches.iter_mut().find(|batch| Arc::ptr_eq(&batch.master, &master)) {
                Some(batch) => batch.waiting.push(waiting),
                None => batches.push(Batch { master, waiting: vec![waiting] }),
            }
        }
        batches
    }

    async fn send(
        &self,
        map: &Map,
        Batch { master, waiting }: &Batch,
        commands: &[KeyCommand],
        deadline: Instant,
        marked: bool,
    ) -> Result<Vec<RedisResult<Value>>, Failure> {
        let shard = map.shard(master).filter(|_| marked);
        let mark: Option<(&_, Mark)> = shard.and_then(|shard| Some((shard, shard.marker.again()?)));
        let answers = master.calls.run_each(deadline, |scripts| {
            let (mut pipeline, at) = (Pipeline::new(), master.clock.at(deadline));
            for Waiting { index, asking, .. } in waiting {
                if *asking {
                    pipeline.cmd("ASKING");
                }
                commands[*index].add_to(&mut pipeline, scripts, at);
            }
            mark.iter().for_each(|(_, mark)| self.names.mark(mark, false).add_to(&mut pipeline, scripts, at));
            pipeline
        });
        let mut answers = answers.await?.into_iter();
        let mut of_commands = Vec::with_capacity(waiting.len());
        for Waiting { asking, .. } in waiting {
            let answer = if *asking { answers.nth(1) } else { answers.next() };
            of_commands.extend(answer);
        }
        if let (Some((shard, mark)), Some(Ok(answer))) = (mark, answers.next())
            && let Ok(marked) = Marked::read(answer)
        {
            shard.marker.answered(&mark, marked.answer);
        }
        Ok(of_commands)
    }

    /// Returns how a refused command goes on, or `None` if it does not.
    fn next(&self, error: &RedisError, from: &Endpoint) -> Option<Next> {
        let node = error.redirect_node().and_then(|(node, _)| Endpoint::parse(node, from));
        match (error.code()?, node) {
            ("MOVED", Some(node)) => {
                self.topology.look_soon();
                Some(Next::At { node, asking: false })
            }
            ("ASK", Some(node)) => Some(Next::At { node, asking: true }),
            // While a slot is being moved, the command's keys may be on two nodes.
            ("TRYAGAIN", _) | ("NOSCRIPT", _) => Some(Next::Later),
            ("CLUSTERDOWN" | "READONLY" | "MASTERDOWN" | "LOADING", _) => {
                self.topology.look_soon();
                Some(Next::Later)
            }
            _ => None,
        }
    }
}

/// How a refused command goes on.
enum Next {
    /// The command is sent to the node that the error names.
    At { node: Endpoint, asking: bool },
    /// The command is sent again a moment later.
    Later,
}
