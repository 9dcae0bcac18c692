//! What happens in a seed: who comes and goes, and what breaks when. It follows from the seed alone; what the processes
//! make of it depends on the machine, so a failing seed fails again most times, not always.

use std::time::Duration;

use super::random::Random;

/// Nodes of the cluster.
pub(super) const NODES: usize = 3;
/// Classrooms of a seed, each with one lesson.
pub(super) const CLASSROOMS: usize = 3;

const AGENTS: usize = 30;
/// Within this all faults begin.
const STORM: usize = 3000;

/// A seed's course.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) seed: u64,
    pub(super) agents: Vec<AgentPlan>,
    pub(super) faults: Vec<Fault>,
}

/// One agent's visits, one after the other.
#[derive(Debug)]
pub(super) struct AgentPlan {
    pub(super) number: usize,
    pub(super) classroom: usize,
    pub(super) teacher: bool,
    pub(super) visits: Vec<Visit>,
}

/// One connection, from before it is opened.
#[derive(Debug, Clone, Copy)]
pub(super) struct Visit {
    pub(super) pause: Duration,
    pub(super) node: usize,
    /// Whether it asks for offsets, and for what it missed where it has been here before.
    pub(super) resumes: bool,
    pub(super) joins: bool,
    pub(super) stays: Duration,
    pub(super) ending: Ending,
}

/// How a connection ends, if nothing else ends it earlier.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    /// By a close frame.
    Close,
    /// The socket is dropped.
    Break,
    /// It is neither read nor written any more, nor closed.
    Vanish,
    /// The next visit's connection takes the session over.
    TakeOver,
}

/// Something that breaks.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fault {
    pub(super) at: Duration,
    pub(super) target: Target,
    pub(super) deed: Deed,
    pub(super) lasts: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Target {
    Node(usize),
    /// The network between clients and a node.
    Wire(usize),
    Postgres,
    Redis,
    Nats,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Deed {
    /// SIGKILL, and a start at the end.
    Kill,
    /// SIGSTOP, and SIGCONT at the end.
    Pause,
    /// Nothing goes through, and all of it follows at the end.
    Hold,
    /// All connections are reset.
    Cut,
    /// Clients lose their connections, the node does not hear of it before the end.
    HalfOpen,
}

impl Plan {
    pub(super) fn of(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let agents = (0..AGENTS).map(|number| agent(number, &mut random)).collect();
        let count = random.within(3..7);
        let mut faults: Vec<Fault> = (0..count).map(|_| fault(&mut random)).collect();
        faults.sort_by_key(|fault| fault.at);
        Self { seed, agents, faults }
    }

    /// The faults in one line.
    pub(super) fn storm(&self) -> String {
        let each = |fault: &Fault| {
            let Fault { at, target, deed, lasts } = fault;
            format!("{deed:?} {target:?} {}+{}", at.as_millis(), lasts.as_millis())
        };
        self.faults.iter().map(each).collect::<Vec<_>>().join(", ")
    }
}

fn agent(number: usize, random: &mut Random) -> AgentPlan {
    let mut visits = Vec::new();
    let mut length = Duration::ZERO;
    while length < Duration::from_millis(STORM as u64) {
        let endings = [(30, Ending::Break), (25, Ending::Close), (30, Ending::TakeOver), (15, Ending::Vanish)];
        let visit = Visit {
            pause: random.millis(0..400),
            node: random.within(0..NODES),
            resumes: random.percent(60),
            joins: random.percent(70),
            stays: random.millis(20..1500),
            ending: random.pick(&endings),
        };
        length += visit.pause + visit.stays;
        visits.push(visit);
    }
    AgentPlan { number, classroom: number % CLASSROOMS, teacher: random.percent(20), visits }
}

fn fault(random: &mut Random) -> Fault {
    let node = random.within(0..NODES);
    let (target, deed, lasts) = random.pick(
        &[
            (4, (Target::Node(node), Deed::Kill, 100..1200)),
            (4, (Target::Node(node), Deed::Pause, 600..1800)),
            (2, (Target::Postgres, Deed::Pause, 200..2000)),
            (2, (Target::Postgres, Deed::Kill, 50..800)),
            (1, (Target::Redis, Deed::Pause, 200..2000)),
            (1, (Target::Redis, Deed::Kill, 50..800)),
            (2, (Target::Nats, Deed::Pause, 200..2000)),
            (2, (Target::Nats, Deed::Kill, 50..800)),
            (1, (Target::Wire(node), Deed::Hold, 200..1500)),
            (1, (Target::Wire(node), Deed::Cut, 1..2)),
            (2, (Target::Wire(node), Deed::HalfOpen, 200..1500)),
        ]
        .map(|(weight, (target, deed, lasts))| (weight, (target, deed, (lasts.start, lasts.end)))),
    );
    Fault { at: random.millis(0..STORM), target, deed, lasts: random.millis(lasts.0..lasts.1) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_is_a_plan() {
        let text = |seed| format!("{:?}", Plan::of(seed));
        assert_eq!(text(3), text(3));
        assert_ne!(text(3), text(4));
    }

    #[test]
    fn every_fault_and_ending_has_its_seed() {
        let plans: Vec<Plan> = (0..100).map(Plan::of).collect();
        for deed in [Deed::Kill, Deed::Pause, Deed::Hold, Deed::Cut, Deed::HalfOpen] {
            assert!(plans.iter().any(|plan| plan.faults.iter().any(|fault| fault.deed == deed)), "{deed:?}");
        }
        let visits = || plans.iter().flat_map(|plan| &plan.agents).flat_map(|agent| &agent.visits);
        for ending in [Ending::Close, Ending::Break, Ending::Vanish, Ending::TakeOver] {
            assert!(visits().any(|visit| visit.ending == ending), "{ending:?}");
        }
    }
}
