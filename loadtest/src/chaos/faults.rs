//! What breaks in a seed, and when it does.

use std::time::Duration;

use super::random::Random;
use super::setting::{STORM, Setting};

/// The steps of the gateway's code, named by `failpoint::reach`, at which a node can be killed or stopped.
pub(super) const STEPS: [&str; 19] = [
    "classroom entered",
    "open begins",
    "open committed",
    "connect done",
    "join begins",
    "join committed",
    "lesson entered",
    "keys written",
    "restore_lesson committed",
    "leave begins",
    "close begins",
    "close committed",
    "leave done",
    "stale fields read",
    "stale fields removed",
    "outbox read",
    "outbox published",
    "dead node reaped",
    "lease renewal begins",
];

/// A fault other than a server's end: its name in the report, the server, and what happens to it.
pub(super) type Mishap = (&'static str, Target, Deed);

/// The mishaps. The ledger balances under the first [`BALANCED`] of them; seeds with the others still fail (`make
/// mishaps`).
static ALL: [Mishap; 13] = [
    ("message forged", Target::Nats, Deed::Forge),
    ("redis demoted", Target::Redis, Deed::Demote),
    ("end refused", Target::Postgres, Deed::RefuseEnd),
    ("authorization away", Target::Authorization, Deed::Away),
    ("authorization hung", Target::Authorization, Deed::Hold),
    ("row poisoned", Target::Postgres, Deed::Poison),
    ("redis put back", Target::Redis, Deed::PutBack),
    ("stream made anew", Target::Nats, Deed::Remake),
    ("postgres put back", Target::Postgres, Deed::PutBack),
    ("stream refuses", Target::Nats, Deed::Refuse),
    ("stream deleted", Target::Nats, Deed::Delete),
    ("publisher stalled", Target::Line(0, Place::Nats), Deed::Stall),
    ("publisher paused", Target::Node(0), Deed::PauseAt("outbox read")),
];
const BALANCED: usize = 8;

/// Returns the mishaps that seeds use: all of them, or those under which the ledger balances.
pub(super) fn mishaps(all: bool) -> &'static [Mishap] {
    if all { &ALL } else { &ALL[..BALANCED] }
}

/// Returns only the mishap of this name.
pub(super) fn named(name: &str) -> Result<&'static [Mishap], String> {
    let found = ALL.iter().position(|(known, ..)| *known == name);
    let names = || ALL.map(|(known, ..)| known).join("`, `");
    found.map(|place| &ALL[place..=place]).ok_or_else(|| format!("it is none of `{}`", names()))
}

/// A fault: what breaks, how, when, and for how long.
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
    /// The network between a node and a server.
    Line(usize, Place),
    Postgres,
    Redis,
    Nats,
    /// The network between all nodes and the authorization service.
    Authorization,
}

/// The server at the end of a node's wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    Postgres,
    Redis,
    Nats,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Deed {
    /// SIGKILL; the process is started again at the end.
    Kill,
    /// SIGSTOP, and SIGCONT at the end.
    Pause,
    /// SIGTERM; the process is started again at the end.
    Drain,
    /// Kills the node, as [`Deed::Kill`] does, when it reaches one of the [`STEPS`].
    KillAt(&'static str),
    /// Pauses the node, as [`Deed::Pause`] does, when it reaches one of the [`STEPS`].
    PauseAt(&'static str),
    /// No bytes go through, and all of them follow at the end.
    Hold,
    /// Holds back bytes, as [`Deed::Hold`] does, but only those to the side that accepted the connection.
    HoldUp,
    /// Holds back bytes, as [`Deed::Hold`] does, but only those to the side that made the connection.
    HoldDown,
    /// All bytes arrive late.
    Slow,
    /// All connections are closed.
    Cut,
    /// Cuts connections, as [`Deed::Cut`] does, and no connection can be made until the end of the fault.
    Away,
    /// Clients lose their connections, and the node does not notice it before the end.
    HalfOpen,
    /// Some KB go through to the server, then nothing. At the end the connections are cut.
    Stall,
    /// The stream is deleted.
    Delete,
    /// The stream is deleted, and made again at once.
    Remake,
    /// The stream takes no message until the end.
    Refuse,
    /// A forged message claims an offset far beyond the stream's end.
    Forge,
    /// The server refuses writes until the end.
    Demote,
    /// The server fails over to another one that lacks what was written during this time.
    PutBack,
    /// The outbox gets rows that cannot be published as they are.
    Poison,
    /// The database refuses to end the sessions of one user until the end.
    RefuseEnd,
}

/// Returns the faults of a seed, in the order of their beginnings.
pub(super) fn of(seed: u64, setting: Setting, mishaps: &[Mishap], random: &mut Random) -> Vec<Fault> {
    let count = random.within(3..7);
    let mut faults: Vec<Fault> = (0..count).map(|_| fault(setting, random)).collect();
    faults.extend(at_step(seed, setting, random));
    if setting != Setting::Embedded {
        faults.extend(mishap(seed, setting, mishaps, random));
    }
    faults.sort_by_key(|fault| fault.at);
    faults
}

fn fault(setting: Setting, random: &mut Random) -> Fault {
    let number = random.within(0..setting.nodes());
    let (node, wire) = (Target::Node(number), Target::Wire(number));
    let line = Target::Line(number, random.pick(&[(2, Place::Postgres), (1, Place::Redis), (1, Place::Nats)]));
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
    let of_lines = [
        (3, (line, Deed::Hold, (200, 2500))),
        (2, (line, Deed::HoldUp, (200, 2500))),
        (2, (line, Deed::HoldDown, (200, 2500))),
        (2, (line, Deed::Slow, (200, 2500))),
        (2, (line, Deed::Away, (50, 2000))),
    ];
    let shared = of_servers.into_iter().chain(of_lines).filter(|_| setting != Setting::Embedded);
    let all: Vec<_> = ours.into_iter().chain(shared).collect();
    let (target, deed, lasts) = random.pick(&all);
    Fault { at: random.millis(0..STORM), target, deed, lasts: random.millis(lasts.0..lasts.1) }
}

/// Returns the fault that interrupts a node at a step, and the faults that lead the node to that step. The seeds use
/// the steps in rotation.
fn at_step(seed: u64, setting: Setting, random: &mut Random) -> Vec<Fault> {
    let turn = usize::try_from(seed % STEPS.len() as u64).expect("less than the number of steps");
    let (step, number) = (STEPS[turn], random.within(0..setting.nodes()));
    let (deed, lasts) = random.pick(&[(1, (Deed::KillAt(step), (100, 1200))), (1, (Deed::PauseAt(step), (600, 1800)))]);
    let strike = Fault {
        at: random.millis(200..1000),
        target: Target::Node(number),
        deed,
        lasts: random.millis(lasts.0..lasts.1),
    };
    let with = |target, deed| Fault { target, deed, lasts: Duration::from_millis(2000), ..strike };
    let others = (0..setting.nodes()).filter(|other| *other != number);
    let mut faults: Vec<Fault> = match step {
        "restore_lesson committed" if setting != Setting::Embedded => {
            vec![with(Target::Line(number, Place::Redis), Deed::Away)]
        }
        "dead node reaped" => others.map(|other| with(Target::Node(other), Deed::Kill)).collect(),
        _ => Vec::new(),
    };
    faults.push(strike);
    faults
}

/// Returns a mishap and the faults that show its harm. The seeds with servers use the mishaps in rotation.
fn mishap(seed: u64, setting: Setting, mishaps: &[Mishap], random: &mut Random) -> Vec<Fault> {
    let turn = usize::try_from(seed % mishaps.len() as u64).expect("less than the number of mishaps");
    let (_, target, deed) = mishaps[turn];
    let number = random.within(0..setting.nodes());
    let at = random.millis(300..1500);
    let fault = |target, deed, at, lasts| Fault { at, target, deed, lasts: Duration::from_millis(lasts) };
    let after = |millis| at + Duration::from_millis(millis);
    match deed {
        // Meanwhile another node publishes the node's events, into a new stream that does not know what the stalled
        // node may still send.
        Deed::Stall => vec![
            fault(Target::Line(number, Place::Nats), deed, at, 1800),
            fault(Target::Line(number, Place::Postgres), Deed::Cut, after(700), 1),
            fault(Target::Nats, Deed::Remake, after(1300), 1),
        ],
        Deed::PauseAt(_) => {
            vec![fault(Target::Node(number), deed, at, 3000), fault(Target::Nats, Deed::Remake, after(2000), 1)]
        }
        Deed::Delete | Deed::Remake | Deed::Forge | Deed::Poison => vec![fault(target, deed, at, 1)],
        _ => vec![Fault { at, target, deed, lasts: random.millis(200..1500) }],
    }
}

#[cfg(test)]
mod tests {
    use super::super::plan::Plan;
    use super::*;

    #[test]
    fn thirty_seeds_have_every_mishap() {
        let plans: Vec<Plan> = (1..=30).map(|seed| Plan::of(seed, &ALL)).collect();
        let missing = ALL
            .into_iter()
            .filter(|(_, _, deed)| !plans.iter().any(|plan| plan.faults.iter().any(|fault| fault.deed == *deed)));
        assert_eq!(missing.map(|(name, ..)| name).collect::<Vec<_>>(), [""; 0]);
    }

    #[test]
    fn fifty_seeds_come_to_every_step() {
        let aimed = |step: &str| {
            let of_step = |fault: &Fault| matches!(fault.deed, Deed::KillAt(at) | Deed::PauseAt(at) if at == step);
            let mut plans =
                (1..=50).map(|seed| Plan::of(seed, mishaps(false))).filter(|plan| plan.setting != Setting::Embedded);
            plans.any(|plan| plan.faults.iter().any(of_step))
        };
        let missing: Vec<&str> = STEPS.into_iter().filter(|step| !aimed(step)).collect();
        assert_eq!(missing, [""; 0]);
    }
}
