//! Socket.IO over WebSocket beside `/ws`, in one run: connects with a join, deliveries, memory and processor time of
//! idle connections, and a storm of clients that come back.

use std::io;
use std::thread;
use std::time::Duration;

use super::idle::at_rest;
use super::reconnect::comes_back;
use super::socketio_peers;
use crate::load::clock::{SECOND, now};
use crate::load::crew::Crew;
use crate::load::order::{Crowd, Goal, Listen};
use crate::load::proc;
use crate::load::results::Limit;
use crate::load::rounds::{EVENT_SIZE, Rounds};
use crate::load::stage::{Stage, fastest};
use crate::load::system::{Kind, System};

/// The number of agents in one classroom.
const ROOM: usize = 30;
/// The number of members that get each event when events follow each other.
const AUDIENCE: usize = 5_000;
const BURST: usize = 200;
const BURST_LIMIT: Duration = Duration::from_secs(60);
const STORM: usize = 5_000;
const PING_ROUND: Duration = Duration::from_secs(30);
/// The share of the rates of `/ws` that Socket.IO must reach.
const SHARE: f64 = 0.9;

/// The figures of one dialect.
struct Found {
    joins: f64,
    one_by_one: f64,
    back_to_back: f64,
    bytes: f64,
    busy: f64,
}

pub(crate) fn run(stage: &mut Stage) -> io::Result<()> {
    for kind in stage.kinds.clone() {
        let plain = measure(stage, kind, false, false)?;
        let over = measure(stage, kind, true, false)?;
        let recovering = measure(stage, kind, true, true)?;
        let mut note = stage.note("socketio", kind);
        let share = |value: f64| Some(Limit::AtLeast(SHARE * value));
        for (name, plain, over, unit) in [
            ("connect and join", plain.joins, over.joins, "/s"),
            ("deliveries one by one", plain.one_by_one, over.one_by_one, "/s"),
            ("deliveries back to back", plain.back_to_back, over.back_to_back, "/s"),
        ] {
            note.figure(&format!("{name}, /ws"), plain, unit, None);
            note.figure(&format!("{name}, Socket.IO"), over, unit, share(plain));
        }
        note.figure("connect and join, with recovery", recovering.joins, "/s", None);
        note.figure("deliveries back to back, with recovery", recovering.back_to_back, "/s", None);
        note.figure("memory a joined connection, /ws", plain.bytes, "bytes", Some(Limit::AtMost(1024.0)));
        note.figure("memory a joined connection, Socket.IO", over.bytes, "bytes", Some(Limit::AtMost(1100.0)));
        note.figure("the same with recovery", recovering.bytes, "bytes", Some(Limit::AtMost(1400.0)));
        note.figure("all idle, on pings, /ws: of one core", plain.busy, "%", Some(Limit::AtMost(1.0)));
        note.figure("all idle, on pings, Socket.IO: of one core", over.busy, "%", Some(Limit::AtMost(1.0)));
        let storm = Crowd::new(63, STORM.min(stage.agents), ROOM).over_socketio();
        comes_back(stage, kind, &storm, "socketio")?;
    }
    socketio_peers::run(stage)
}

fn measure(stage: &mut Stage, kind: Kind, socketio: bool, recovery: bool) -> io::Result<Found> {
    let settings = [("ROLLCALL_SOCKETIO_RECOVERY", recovery.to_string())];
    let over = |crowd: Crowd| if socketio { crowd.over_socketio() } else { crowd };
    let crowd = over(Crowd::new(60, stage.agents, ROOM));
    let system = stage.start_with(kind, 1, std::slice::from_ref(&crowd), &settings)?;
    let mut crew = Crew::for_agents(crowd.agents)?;
    let band = crew.prepare(&crowd, system.address())?;
    let (joins, wave) = fastest(&mut crew, &system, &band, Goal::Joined)?;
    let name = format!("connect and join{}", if socketio { ", Socket.IO" } else { ", /ws" });
    stage.note("socketio", kind).failures(&name, &wave);
    drop((crew, system));

    let few = over(Crowd::new(61, stage.agents.div_ceil(4), ROOM));
    let rest = few.then(stage.agents - few.agents);
    let system = stage.start_with(kind, 1, &[few.clone(), rest.clone()], &settings)?;
    let mut crew = Crew::for_agents(stage.agents)?;
    let first = crew.prepare(&few, system.address())?;
    let second = crew.prepare(&rest, system.address())?;
    let mut sizes = Vec::new();
    for band in [&first, &second] {
        crew.gather(band)?;
        sizes.push(at_rest(&system)? as f64);
    }
    let cpu = proc::cpu_seconds(system.pid())?;
    thread::sleep(PING_ROUND);
    let busy = (proc::cpu_seconds(system.pid())? - cpu) / PING_ROUND.as_secs_f64() * 100.0;
    drop((crew, system));

    let (one_by_one, back_to_back) = deliveries(stage, kind, over(audience(stage, recovery)), &settings)?;
    Ok(Found { joins, one_by_one, back_to_back, bytes: (sizes[1] - sizes[0]) / rest.agents as f64, busy })
}

/// Returns the agents that get the events. Guests fill a room of thousands without millions of events, but cannot
/// recover.
fn audience(stage: &Stage, recovery: bool) -> Crowd {
    let members = AUDIENCE.min(stage.agents);
    if recovery { Crowd::new(62, members, ROOM) } else { Crowd::guests(62, members, members) }
}

fn deliveries(stage: &Stage, kind: Kind, crowd: Crowd, settings: &[(&str, String)]) -> io::Result<(f64, f64)> {
    let system: System = stage.start_with(kind, 1, std::slice::from_ref(&crowd), settings)?;
    let mut crew = Crew::for_agents(crowd.agents)?;
    let band = crew.prepare(&crowd, system.address())?;
    crew.gather(&band)?;
    let mut publisher = system.publisher()?;
    let one_by_one = match crowd.rooms().len() {
        1 => Rounds::run(&mut crew, &band, &mut publisher, &crowd.lesson(0))?.overall(),
        _ => 0.0,
    };
    crew.listen(Listen::Count)?;
    let mut began = 0;
    let last = crew.pushes(&band, BURST as f64, BURST_LIMIT, || {
        began = now();
        crowd.rooms().try_for_each(|room| publisher.publish(&crowd.lesson(room), EVENT_SIZE, BURST))
    })?;
    let took = last.unwrap_or_else(now).saturating_sub(began).max(1);
    let pushes = crew.count()?.pushes as f64;
    Ok((one_by_one, pushes * SECOND as f64 / took as f64))
}
