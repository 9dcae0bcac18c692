//! Fan-out: events one at a time and back to back into a room of 10,000, how long the last of 50 members waits, and
//! readers that stop reading.

use std::io;
use std::thread;
use std::time::Duration;

use super::floor::ROOM;
use crate::load::clock::{SECOND, now};
use crate::load::crew::Crew;
use crate::load::order::{Crowd, Listen};
use crate::load::peers;
use crate::load::publisher::Publisher;
use crate::load::results::Limit;
use crate::load::rounds::{EVENT_SIZE, Rounds};
use crate::load::stage::{Stage, latency_ms};
use crate::load::system::Kind;

const LIMIT: Duration = Duration::from_secs(60);
const BURST: usize = 500;
const SMALL_ROOM: usize = 50;
const SMALL_ROOMS: usize = 20;
const PACED_SECONDS: f64 = 5.0;
const MIXED_ROOM: usize = 1000;
/// One agent of this many stops reading.
const STALLED_OF: usize = 20;
const BIG_EVENT: usize = 4000;
const BIG_EVENTS_A_SECOND: f64 = 50.0;
/// The maximum number of bytes that may wait for a connection: those in its queue and in the kernel's buffers.
const MAX_QUEUED: f64 = 256.0 * 1024.0;

pub(crate) fn run(stage: &mut Stage) -> io::Result<()> {
    let floor = stage.floor()?.sends;
    let bare = last_of_50(stage, Kind::Floor, floor.overall())?;
    write_down(stage, Kind::Floor, bare, bare);
    for kind in stage.kinds.clone() {
        big_room(stage, kind, &floor)?;
        // The floor has no lessons, and its queues have no limit.
        if kind != Kind::Floor {
            let waits = last_of_50(stage, kind, floor.overall())?;
            write_down(stage, kind, waits, bare);
            slow_readers(stage, kind)?;
        }
    }
    Ok(())
}

fn big_room(stage: &mut Stage, kind: Kind, floor: &Rounds) -> io::Result<()> {
    let members = ROOM.min(stage.agents);
    let crowd = Crowd::guests(30, members, members);
    let system = stage.start(kind, 1, std::slice::from_ref(&crowd))?;
    let mut crew = Crew::for_agents(members)?;
    let band = crew.prepare(&crowd, system.address())?;
    crew.gather(&band)?;
    let mut publisher = system.publisher()?;
    let lesson = crowd.lesson(0);
    let sends = Rounds::run(&mut crew, &band, &mut publisher, &lesson)?;

    crew.listen(Listen::Count)?;
    let mut began = 0;
    let last = crew.pushes(&band, BURST as f64, LIMIT, || {
        began = now();
        publisher.publish(&lesson, EVENT_SIZE, BURST)
    })?;
    let ended = last.unwrap_or_else(now);
    let pushes = crew.count()?.pushes as f64;
    let burst = pushes * SECOND as f64 / (ended - began) as f64;
    let missing = (members * BURST) as f64 - pushes;

    let mut note = stage.note("fanout", kind);
    let name = format!("sends to a room of {members}, one by one");
    let floor_rate = Some(floor.overall());
    note.beside_floor(&name, sends.overall(), "/s", floor_rate, Some(Limit::OfFloor(0.95)));
    let name = peers::DELIVERIES;
    note.beside_floor(name, burst, "/s", floor_rate, Some(Limit::AtLeast(1_000_000.0)));
    note.figure("deliveries lost or doubled", missing.abs(), "", Some(Limit::AtMost(0.0)));
    let flat = sends.curve().into_iter().map(|(round, _)| (round, burst)).collect();
    let curves = [("floor", floor.curve()), ("one by one", sends.curve()), ("back to back", flat)];
    let curves = curves.map(|(name, points)| (name.to_owned(), points));
    note.plot("Deliveries a second", "round", "/s", curves.to_vec());
    Ok(())
}

/// How long the last of 50 agents waits for an event, in milliseconds.
#[derive(Clone, Copy)]
struct LastOf50 {
    p50: f64,
    p99: f64,
    lost: f64,
}

/// Returns the latency at half of the load that the floor can handle.
fn last_of_50(stage: &Stage, kind: Kind, floor: f64) -> io::Result<LastOf50> {
    // The floor has one room.
    let rooms = if kind == Kind::Floor { 1 } else { SMALL_ROOMS };
    let crowd = Crowd::guests(31, SMALL_ROOM * rooms, SMALL_ROOM);
    let system = stage.start(kind, 1, std::slice::from_ref(&crowd))?;
    let mut crew = Crew::for_agents(crowd.agents)?;
    let band = crew.prepare(&crowd, system.address())?;
    crew.gather(&band)?;
    let mut publisher = system.publisher()?;
    let lessons: Vec<String> = crowd.rooms().map(|room| crowd.lesson(room)).collect();
    crew.listen(Listen::LastOf(SMALL_ROOM as u32))?;
    let rate = floor / SMALL_ROOM as f64 / 2.0;
    let published = paced(&mut publisher, &lessons, EVENT_SIZE, rate)?;
    let each = published as f64 / rooms as f64;
    let all = crew.pushes(&band, each, LIMIT, || Ok(()))?;
    let heard = crew.count()?;
    let lost = if all.is_some() { 0.0 } else { (published * SMALL_ROOM) as f64 - heard.pushes as f64 };
    Ok(LastOf50 { p50: latency_ms(&heard.latencies, 0.5), p99: latency_ms(&heard.latencies, 0.99), lost })
}

fn write_down(stage: &mut Stage, kind: Kind, waits: LastOf50, floor: LastOf50) {
    let limit = |most| (kind != Kind::Floor).then_some(Limit::AtMost(most));
    let mut note = stage.note("fanout", kind);
    note.beside_floor("publish to the last of 50: p50", waits.p50, "ms", Some(floor.p50), None);
    note.beside_floor(peers::WAIT, waits.p99, "ms", Some(floor.p99), limit(2.0));
    note.figure("publish to the last of 50: lost", waits.lost, "", limit(0.0));
}

fn slow_readers(stage: &mut Stage, kind: Kind) -> io::Result<()> {
    let crowd = Crowd::guests(32, MIXED_ROOM, MIXED_ROOM);
    let mut system = stage.start(kind, 1, std::slice::from_ref(&crowd))?;
    let mut crew = Crew::for_agents(crowd.agents)?;
    let band = crew.prepare(&crowd, system.address())?;
    crew.gather(&band)?;
    let mut publisher = system.publisher()?;
    let lessons = [crowd.lesson(0)];
    let mut p99 = Vec::new();
    let before = system.pss()?;
    let mut most = before;
    for stalled in [false, true] {
        if stalled {
            crew.stall(STALLED_OF)?;
        }
        crew.listen(Listen::Each)?;
        let published = paced(&mut publisher, &lessons, BIG_EVENT, BIG_EVENTS_A_SECOND)?;
        let readers = if stalled { 1.0 - 1.0 / STALLED_OF as f64 } else { 1.0 };
        crew.pushes(&band, published as f64 * readers, LIMIT, || Ok(()))?;
        p99.push(latency_ms(&crew.count()?.latencies, 0.99));
        most = most.max(system.pss()?);
    }
    let stalled = MIXED_ROOM / STALLED_OF;
    let gateway = system.gateway()?;
    let labels = ["slow_consumer"];
    let closed = gateway
        .wait_for_metric("rollcall_disconnects_total", &labels, LIMIT, |closed| closed >= stalled as f64)
        .or_else(|_| gateway.metric("rollcall_disconnects_total", &labels))?;
    let mut note = stage.note("fanout", kind);
    let name = format!("of {stalled} who stop reading: closed");
    note.figure(&name, closed, "", Some(Limit::AtLeast(stalled as f64)));
    let limit = Some(Limit::AtMost(2.0 * p99[0]));
    note.figure("p99 of the others", p99[1], "ms", limit);
    let each = most.saturating_sub(before) as f64 / stalled as f64;
    note.figure("memory for each who stops reading", each, "bytes", Some(Limit::AtMost(MAX_QUEUED)));
    Ok(())
}

/// Publishes for some seconds at a rate, to the rooms by turns. Returns the number of events.
pub(super) fn paced(publisher: &mut Publisher, lessons: &[String], size: usize, rate: f64) -> io::Result<usize> {
    let count = (rate * PACED_SECONDS) as usize / lessons.len() * lessons.len();
    let began = now();
    for (index, lesson) in (0..count).zip(lessons.iter().cycle()) {
        let due = began + (index as f64 / rate * SECOND as f64) as u64;
        thread::sleep(Duration::from_nanos(due.saturating_sub(now())));
        publisher.publish(lesson, size, 1)?;
    }
    Ok(count)
}
