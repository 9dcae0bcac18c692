//! What happens in a seed: who comes and goes, and what breaks when. It follows from the seed alone; what the processes
//! make of it depends on the machine, so a failing seed fails again most times, not always.

use std::time::Duration;

use super::random::Random;

/// Nodes of the cluster.
pub(super) const NODES: usize = 3;
/// Classrooms of a seed.
pub(super) const CLASSROOMS: usize = 3;
/// Lessons of each.
pub(super) const LESSONS: usize = 2;

/// The steps of the gateway's code at which a node can be killed or stopped: its `failpoint::reach`.
pub(super) const STEPS: [&str; 19] = [
    "classroom entered",
    "open begins",
    "open committed",
    "connect done",
    "join begins",
    "join committed",
    "lesson entered",
    "keys written",
    "restore committed",
    "leave begins",
    "close begins",
    "close committed",
    "leave done",
    "leavings read",
    "leavings removed",
    "outbox read",
    "outbox published",
    "dead node reaped",
    "pulse",
];

const AGENTS: usize = 30;
/// Every so many agents one is another's user under a second label.
const TWINS: usize = 5;
/// Within this all faults begin.
const STORM: usize = 3000;

/// What the agents connect to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Setting {
    /// Three nodes on their servers.
    Cluster,
    /// The same, where who breaks off may come back for a while.
    Grace,
    /// One node without servers.
    Embedded,
}

impl Setting {
    /// Of each ten seeds two and one are of the rarer kinds.
    pub(super) fn of(seed: u64) -> Self {
        match seed % 10 {
            3 | 8 => Self::Grace,
            5 => Self::Embedded,
            _ => Self::Cluster,
        }
    }

    pub(super) fn nodes(self) -> usize {
        if self == Self::Embedded { 1 } else { NODES }
    }
}

/// A seed's course.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) seed: u64,
    pub(super) setting: Setting,
    pub(super) agents: Vec<AgentPlan>,
    pub(super) faults: Vec<Fault>,
}

/// One agent's visits, one after the other.
#[derive(Debug)]
pub(super) struct AgentPlan {
    pub(super) number: usize,
    /// Whose it is: some users have two agents.
    pub(super) user: usize,
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
    /// Whether it goes on to the classroom's other lesson.
    pub(super) moves: bool,
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
    /// SIGTERM, and a start at the end.
    Drain,
    /// As [`Deed::Kill`], when it comes to one of the [`STEPS`].
    KillAt(&'static str),
    /// As [`Deed::Pause`], when it comes to one of the [`STEPS`].
    PauseAt(&'static str),
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
        let setting = Setting::of(seed);
        let mut agents: Vec<AgentPlan> =
            (0..AGENTS).map(|number| agent(number, setting.nodes(), &mut random)).collect();
        for number in (TWINS - 1..AGENTS).step_by(TWINS) {
            // Its sibling is in the same classroom.
            let sibling = number - CLASSROOMS;
            (agents[number].user, agents[number].teacher) = (sibling, agents[sibling].teacher);
        }
        let count = random.within(3..7);
        let mut faults: Vec<Fault> = (0..count).map(|_| fault(setting, &mut random)).collect();
        faults.sort_by_key(|fault| fault.at);
        Self { seed, setting, agents, faults }
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

fn agent(number: usize, nodes: usize, random: &mut Random) -> AgentPlan {
    let mut visits = Vec::new();
    let mut length = Duration::ZERO;
    while length < Duration::from_millis(STORM as u64) {
        let endings = [(30, Ending::Break), (25, Ending::Close), (30, Ending::TakeOver), (15, Ending::Vanish)];
        let visit = Visit {
            pause: random.millis(0..400),
            node: random.within(0..nodes),
            resumes: random.percent(60),
            joins: random.percent(70),
            moves: random.percent(20),
            stays: random.millis(20..1500),
            ending: random.pick(&endings),
        };
        length += visit.pause + visit.stays;
        visits.push(visit);
    }
    AgentPlan { number, user: number, classroom: number % CLASSROOMS, teacher: random.percent(20), visits }
}

fn fault(setting: Setting, random: &mut Random) -> Fault {
    let number = random.within(0..setting.nodes());
    let (node, wire) = (Target::Node(number), Target::Wire(number));
    let step = STEPS[random.within(0..STEPS.len())];
    let ours = [
        (3, (node, Deed::Kill, (100, 1200))),
        (3, (node, Deed::Pause, (600, 1800))),
        (3, (node, Deed::KillAt(step), (100, 1200))),
        (3, (node, Deed::PauseAt(step), (600, 1800))),
        (2, (node, Deed::Drain, (100, 600))),
        (1, (wire, Deed::Hold, (200, 1500))),
        (1, (wire, Deed::Cut, (1, 2))),
        (2, (wire, Deed::HalfOpen, (200, 1500))),
    ];
    let of_servers = [
        (2, (Target::Postgres, Deed::Pause, (200, 2000))),
        (2, (Target::Postgres, Deed::Kill, (50, 800))),
        (2, (Target::Redis, Deed::Pause, (200, 2000))),
        (1, (Target::Redis, Deed::Kill, (50, 800))),
        (2, (Target::Nats, Deed::Pause, (200, 2000))),
        (2, (Target::Nats, Deed::Kill, (50, 800))),
    ];
    let of_servers = of_servers.into_iter().filter(|_| setting != Setting::Embedded);
    let all: Vec<_> = ours.into_iter().chain(of_servers).collect();
    let (target, deed, lasts) = random.pick(&all);
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
        let plans: Vec<Plan> = (0..300).map(Plan::of).collect();
        let at = STEPS.into_iter().flat_map(|step| [Deed::KillAt(step), Deed::PauseAt(step)]);
        for deed in [Deed::Kill, Deed::Pause, Deed::Drain, Deed::Hold, Deed::Cut, Deed::HalfOpen].into_iter().chain(at)
        {
            assert!(plans.iter().any(|plan| plan.faults.iter().any(|fault| fault.deed == deed)), "{deed:?}");
        }
        let visits = || plans.iter().flat_map(|plan| &plan.agents).flat_map(|agent| &agent.visits);
        for ending in [Ending::Close, Ending::Break, Ending::Vanish, Ending::TakeOver] {
            assert!(visits().any(|visit| visit.ending == ending), "{ending:?}");
        }
    }
}
