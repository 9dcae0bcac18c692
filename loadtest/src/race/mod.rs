//! A race: pairs of agents enter classrooms at once on several nodes, each reads which agents are there (with
//! connect_success, right after it by an event, or over HTTP as a client or an operator), and others enter and leave
//! meanwhile. List and pushes together must give every agent a whole view (PROTOCOL 2, "The view is whole").
//!
//! Ids do not commit in order: a node commits many sessions as one group. After a group has drawn its ids and before it
//! commits, agents of another node's group may get connect_success and read the list. The race makes this happen often.
//! On the first node the rows of some agents are locked for a while. One group waits for the early ones, so the next
//! group becomes large. The next group waits for the late ones, while other agents enter on other nodes.
//!
//! Invariant: views are compared with the clients' own connect_success, not with the gateway's tables.

mod lock;
mod member;

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::mem;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::future::try_join_all;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use crate::Gateway;
use crate::view::Agents;
use lock::Locked;
use member::{Ending, Member, Reading, Ticket};

/// How long a view may lack an event that has happened.
const SETTLE_LIMIT: Duration = Duration::from_secs(5);
/// The users whose rows are locked have these names and a number.
const EARLY: &str = "early";
const LATE: &str = "late";
/// How long the rows of the early ones are locked, and after them those of the late ones. A gateway gives up at 400 ms.
const EARLY_HELD: Duration = Duration::from_millis(300);
const LATE_HELD: Duration = Duration::from_millis(300);
/// The milliseconds between the starts of two agents.
const STAGGER: u64 = 17;
/// The number of agents of each kind whose rows are locked. A node writes several groups at once, and each should have
/// some of them.
const SLOW: usize = 6;
/// When agents enter while a large group waits, and over how long, in milliseconds.
const MEANWHILE: (u64, u64) = (330, 250);
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// How large a race is.
#[derive(Debug, Clone, Copy)]
pub struct Race {
    /// How many pairs enter in all batches together.
    pub pairs: usize,
    /// How many pairs enter at once. Half of them have a classroom each, and the others share one classroom.
    pub at_once: usize,
}

/// The results of a race.
#[derive(Debug, Default)]
pub struct Found {
    /// How many views were compared.
    pub views: usize,
    /// The views that were wrong, in words.
    pub wrong: Vec<String>,
}

impl fmt::Display for Found {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} of {} views were wrong", self.wrong.len(), self.views)
    }
}

/// Runs a race on these nodes, which share their servers and this database.
///
/// # Errors
/// Returns an error if a client is refused, or a list does not arrive.
pub async fn run(nodes: &[Gateway], database: &str, race: Race) -> io::Result<Found> {
    let mut found = Found::default();
    let mut slow = enter(slow_ones(nodes, 1), None).await?;
    let mut left = race.pairs;
    while left > 0 {
        let pairs = left.min(race.at_once.max(1));
        let next = batch(nodes, database, pairs, &mut found).await?;
        // New connections have taken over the sessions of these connections.
        drop(mem::replace(&mut slow, next));
        left -= pairs;
    }
    Ok(found)
}

/// Runs one batch: all enter at once, then half of them leave while others enter, then all leave but the agents with
/// locked rows.
async fn batch(nodes: &[Gateway], database: &str, pairs: usize, found: &mut Found) -> io::Result<Vec<Member>> {
    let crowd = classroom();
    let classrooms: Vec<String> =
        (0..pairs).map(|pair| if pair < pairs / 2 { classroom() } else { crowd.clone() }).collect();
    let of_pair = |pair: usize| {
        let [a, b] = [pair, pair + pair / nodes.len()].map(|node| ticket(nodes, node, &classrooms[pair]));
        if pair.is_multiple_of(2) {
            return [a, b];
        }
        let pause = Duration::from_millis(MEANWHILE.0 + pair as u64 * 7 % MEANWHILE.1);
        [ticket(nodes, 0, &classrooms[pair]), Ticket { pause, ..ticket(nodes, 1 + pair / 2 % 2, &classrooms[pair]) }]
    };
    // Beside every second pair another agent enters and leaves.
    let guest = |pair: usize| ticket(nodes, pair + 1, &classrooms[pair]);
    let tickets = slow_ones(nodes, 0).into_iter().chain((0..pairs).flat_map(of_pair)).collect();
    let guests = pass_through((0..pairs).step_by(2).map(guest).collect());
    let (mut members, ()) = tokio::try_join!(enter(tickets, Some(database)), guests)?;
    let others = members.split_off(2 * SLOW);
    let (slow, members) = (members, others);
    check(&members, "when all had entered", found).await;

    // Of each pair one agent leaves while another enters.
    let (leaving, mut members): (Vec<_>, Vec<_>) = members.into_iter().enumerate().partition(|(at, _)| at % 2 == 1);
    let successors = (0..pairs).map(|pair| ticket(nodes, pair + 2, &classrooms[pair])).collect();
    let ending = |at: usize| if at % 4 == 1 { Ending::Close } else { Ending::Break };
    let leave = try_join_all(leaving.into_iter().map(|(at, member)| member.leave(ending(at))));
    let (entered, _) = tokio::try_join!(enter(successors, None), leave)?;
    members.extend(entered.into_iter().enumerate());
    let members: Vec<Member> = members.into_iter().map(|(_, member)| member).collect();
    check(&members, "when half of them had left", found).await;

    try_join_all(members.into_iter().map(|member| member.leave(Ending::Close))).await?;
    Ok(slow)
}

/// Lets all members enter at the same time. If there is a database, the rows of the slow members are locked then.
async fn enter(tickets: Vec<Ticket>, database: Option<&str>) -> io::Result<Vec<Member>> {
    let (go, told) = watch::channel(false);
    let connected = tickets.into_iter().map(|ticket| ticket.connect(told.clone()));
    let connected = try_join_all(connected).await?;
    let entered: Vec<_> = connected.into_iter().map(|connected| tokio::spawn(connected.enter())).collect();
    let locked = match database {
        Some(database) => Some((Locked::rows(database, EARLY).await?, Locked::rows(database, LATE).await?)),
        None => None,
    };
    go.send_replace(true);
    if let Some((early, late)) = locked {
        tokio::spawn(async {
            sleep(EARLY_HELD).await;
            drop(early);
            sleep(LATE_HELD).await;
            drop(late);
        });
    }
    let mut members = Vec::with_capacity(entered.len());
    for entered in entered {
        members.push(entered.await.map_err(io::Error::other)??);
    }
    Ok(members)
}

/// Lets agents enter and leave at once.
async fn pass_through(tickets: Vec<Ticket>) -> io::Result<()> {
    let guests = enter(tickets, None).await?;
    try_join_all(guests.into_iter().map(|guest| guest.leave(Ending::Break))).await.map(drop)
}

/// Waits until every view is right. Views that do not become right are recorded as wrong.
async fn check(members: &[Member], when: &str, found: &mut Found) {
    let mut there: BTreeMap<&str, Agents> = BTreeMap::new();
    for Member { classroom, session, agent, .. } in members {
        there.entry(classroom).or_default().insert(*session, agent.clone());
    }
    let deadline = Instant::now() + SETTLE_LIMIT;
    loop {
        let wrong = members.iter().filter_map(|member| {
            let difference = member.view().difference(&there[member.classroom.as_str()])?;
            Some(format!("{when}, {member} {difference}"))
        });
        let wrong: Vec<String> = wrong.collect();
        if wrong.is_empty() || Instant::now() >= deadline {
            found.views += members.len();
            found.wrong.extend(wrong);
            return;
        }
        sleep(LOOK_EVERY).await;
    }
}

/// Returns the node and the identity of a new member.
fn ticket(nodes: &[Gateway], node: usize, classroom: &str) -> Ticket {
    static USERS: AtomicU64 = AtomicU64::new(0);
    let user = USERS.fetch_add(1, Ordering::Relaxed);
    let at = node % nodes.len();
    Ticket {
        address: nodes[at].address(),
        admin: nodes[at].admin(),
        node: at,
        classroom: classroom.to_owned(),
        user: format!("racer-{user}"),
        pause: Duration::from_millis(user % STAGGER),
        resumes: user.is_multiple_of(3),
        reading: Reading::ALL[usize::try_from(user % 4).unwrap_or_default()],
    }
}

/// Returns the agents whose rows are locked at a start. Their classroom comes after all others in a group.
fn slow_ones(nodes: &[Gateway], node: usize) -> Vec<Ticket> {
    let classroom = format!("ffffffff-0000-4000-8000-{:012x}", std::process::id());
    let kinds = [(EARLY, 0), (LATE, STAGGER)];
    let each = kinds.into_iter().flat_map(|(kind, pause)| (0..SLOW).map(move |number| (kind, number, pause)));
    let tickets = each.map(|(kind, number, pause)| Ticket {
        user: format!("{kind}-{number}"),
        pause: Duration::from_millis(pause),
        ..ticket(nodes, node, &classroom)
    });
    tickets.collect()
}

/// Returns a classroom that no agent has entered.
fn classroom() -> String {
    static CLASSROOMS: AtomicU64 = AtomicU64::new(0);
    let number = CLASSROOMS.fetch_add(1, Ordering::Relaxed);
    format!("{:08x}-0000-4000-8000-{number:012x}", std::process::id())
}
