//! What happens in a seed: which agents enter and leave, what breaks, and when. The plan follows from the seed alone.
//! How the processes react depends on the machine, so a failing seed fails again most of the time, not always.

use std::time::Duration;

use super::faults::{self, Fault, Mishap};
use super::random::Random;
use super::setting::{STORM, Setting};

/// The classrooms of a seed.
pub(super) const CLASSROOMS: usize = 3;
/// The lessons of each classroom.
pub(super) const LESSONS: usize = 2;

const AGENTS: usize = 30;
/// One agent in this many has the user of another agent, under a second label.
const TWINS: usize = 5;

/// What happens in a seed.
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
    /// The agent's user; some users have two agents.
    pub(super) user: usize,
    pub(super) classroom: usize,
    pub(super) teacher: bool,
    pub(super) visits: Vec<Visit>,
}

/// One connection, from the time before it is opened.
#[derive(Debug, Clone, Copy)]
pub(super) struct Visit {
    pub(super) pause: Duration,
    pub(super) node: usize,
    /// Whether the connection asks for offsets, and resumes if the agent had some before.
    pub(super) resumes: bool,
    pub(super) joins: bool,
    /// Whether the connection moves to the classroom's other lesson.
    pub(super) moves: bool,
    pub(super) stays: Duration,
    pub(super) ending: Ending,
}

/// How a connection ends, if nothing else ends it earlier.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    /// The client sends a close frame.
    Close,
    /// The client drops the socket.
    Break,
    /// The client neither reads, writes nor closes any more.
    Vanish,
    /// The next visit's connection takes the session over.
    TakeOver,
}

impl Plan {
    pub(super) fn of(seed: u64, mishaps: &[Mishap]) -> Self {
        let mut random = Random::new(seed);
        let setting = Setting::of(seed);
        let mut agents: Vec<AgentPlan> =
            (0..AGENTS).map(|number| agent(number, setting.nodes(), &mut random)).collect();
        for number in (TWINS - 1..AGENTS).step_by(TWINS) {
            // The two agents of a user are in the same classroom.
            let sibling = number - CLASSROOMS;
            (agents[number].user, agents[number].teacher) = (sibling, agents[sibling].teacher);
        }
        let faults = faults::of(seed, setting, mishaps, &mut random);
        Self { seed, setting, agents, faults }
    }

    /// Returns the faults in one line.
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

#[cfg(test)]
mod tests {
    use super::super::faults::{Deed, STEPS};
    use super::*;

    #[test]
    fn a_seed_is_a_plan() {
        let text = |seed| format!("{:?}", Plan::of(seed, faults::mishaps(true)));
        assert_eq!(text(3), text(3));
        assert_ne!(text(3), text(4));
    }

    #[test]
    fn every_fault_and_ending_has_its_seed() {
        let plans: Vec<Plan> = (0..300).map(|seed| Plan::of(seed, faults::mishaps(true))).collect();
        let at = STEPS.into_iter().flat_map(|step| [Deed::KillAt(step), Deed::PauseAt(step)]);
        let of_nodes = [Deed::Kill, Deed::Pause, Deed::Drain];
        let of_wires = [Deed::Hold, Deed::HoldUp, Deed::HoldDown, Deed::Slow, Deed::Cut, Deed::Away, Deed::HalfOpen];
        for deed in of_nodes.into_iter().chain(of_wires).chain(at) {
            assert!(plans.iter().any(|plan| plan.faults.iter().any(|fault| fault.deed == deed)), "{deed:?}");
        }
        let visits = || plans.iter().flat_map(|plan| &plan.agents).flat_map(|agent| &agent.visits);
        for ending in [Ending::Close, Ending::Break, Ending::Vanish, Ending::TakeOver] {
            assert!(visits().any(|visit| visit.ending == ending), "{ending:?}");
        }
    }
}
